"""The bench `lifecycle`: what becomes of a fleet whose processes die, freeze and lie.

One scenario a file.

Leaders (`leaders`, real)
    Four beats stand by for each other, and the one that leads is struck a hundred times: killed, or
    frozen and woken 0.5 to 14 s later, in turn by chance, 0.2 to 3 s after it began to lead. What
    arrives is read from the queues, by who knows nothing of the beats. A tick is doubled if it
    comes within half of its period after the last one, or is the second of its minute; it is missed
    if it comes more than 15 s late, or there is none in its minute. RedBeat is struck in the same
    way at the same time, with a lock of the same length.

Zombies (`zombies`, real)
    Five workers at a time, each with a server of its own and the settings as they are. Each suffers
    the same again and again, without a restart: its consumer is cancelled by remote control, the
    connection by which it takes messages is killed, or is watched by its event loop no more. Found
    is when its heartbeat says so; working, when a task begins that was sent 0.3 s after the fault.
    A stock worker comes back from a killed connection too, and from the others never. And workers
    whose slots are always taken, with all periods a fiftieth: whatever is found there is false.

A rolling restart (`rolling`, real)
    Three workers with two slots each under load: nine tasks in ten take 0.2 to 1 s, the tenth 8 s,
    at 45 % of all slots. Each worker in turn gets SIGTERM, ends when what it runs has ended, and is
    started again under its name; the next one follows when it takes work. Lost and doubled are
    told by the tasks' own account. The added wait of a task is its wait from `delay()` to its
    start, less that of the same task in the same run of arrivals without a restart before; the
    figure is the worst of all tasks. The peers are stock Celery with late acknowledgements and
    prefetch 1, and as it is by default. All sides run at the same time, each with a server of its
    own.

Health (`health`, simulated machines, real policy and vitals)
    Instances with four slots, busy for 80 % of the time, with tasks whose durations are
    exponential, lognormal (SCV 10) or of two kinds (one in twenty is 19 times as long).
    `false DEGRADED` is told for each instance and day, of instances that nobody can acquit: each is
    judged by its own past. `sparse` are 32 tasks a minute, little above the fewest that are judged.
    In a brown-out one of three becomes ten times slower for 15 minutes; `found` is the time until
    it is DEGRADED. What is slow, or fails, for all at once must make nobody DEGRADED, and neither
    must a load that comes and goes within ten minutes, not at the same time everywhere, and slows
    tasks by up to a half.
"""

from bench.lifecycle.runner import run

__all__ = ["run"]
