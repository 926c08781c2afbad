"""The bench `lifecycle`: who is given up, how soon, and who is withheld, beside how others judge.

`python -m bench lifecycle` runs all of it, `python -m bench lifecycle.simulated` what is simulated,
with five seeds each: the policy `policy.fleet.lifecycle` over fleets in simulated time. `records`
is what the store's scripts do, `node` a process that beats as a worker does, `fleet` the ticks,
`faults` what goes wrong, `watchers` and `damping` how others judge the same fleet. Ticks at which
nothing can be decided are not evaluated; the history is the same.

S7, finding a loss (`detection`)
    50 instances, 24 hours. Each is killed (its connections close) or loses its power (they stay)
    six times a day, and comes back after minutes. 0 to 20 % of the heartbeats are lost, each for
    the `broker_timeout` that a worker waits for an answer; with `Zipf` they are late by Zipf's law
    too, up to 20 s. `found` is from the loss to the transition that takes it out (two humps: 5 to
    15 s after a kill, 25 to 35 s after a loss of power), `false deaths` are living instances that
    became GONE, `false suspicions` living ones that became a ZOMBIE, each for an instance and a
    day.
S7, the observer is sick (`sick_observers`)
    24 hours with a fault of all in each half hour: the observer does nothing for 60 s, before it
    looks or before it acts; the server is away for 2 min; clocks are set by 10 min; 60 % of the
    fleet cannot be heard for 1 to 4 min, with its connections or without. Of 50 instances, nobody
    is dead. With `pauses` each instance stands still for 5 to 60 s six times a day.
S9, what is planned (`deploys`)
    20 instances, restarted one by one, all of them twice in 10 min. And 50 instances at 80 % load
    for two hours, every tick evaluated: being busy is no illness. `the letter` is the spec's rule
    read literally: more than three transitions in 5 min, and DEGRADED while 75 % busy.
S9, what crashes (`crash_loops`)
    One of 50 crashes every 40 s for four hours; it is back after 2 s, before anybody missed it, or
    after 20 s, when it was GONE. `not obeyed` are back-offs of another length than told, or with
    an ACTIVE instance in them. `tasks on it` is what it gets if each instance gets tasks by its
    weight while it is ACTIVE. Then 15 of 50 crash like that.

Peers watch the same heartbeats at the same looks: a fixed time-out of 30 s by the observer's own
clock; phi-accrual as in Pekko (threshold 8, least deviation 100 ms, pause 3 s, made for a heartbeat
each second; and with a pause of 15 s); Kubernetes (not ready after 40 s, evicted after 5 min more,
one in 10 s, none while 55 % are not ready). Those who damp read what NXS recorded while it withheld
nobody: `the letter`, RFC 2439 (penalty 1000, half-life 15 min, suppressed at 2000), and
CrashLoopBackOff, which starts the process later (10 s, doubled up to 5 min).

Leaders (`leaders`, real)
    Four beats stand by for each other, and the one that leads is struck a hundred times: killed, or
    frozen and woken 0.5 to 14 s later, in turn by chance, 0.2 to 3 s after it began to lead. Then
    ten times at the worst moment: it is frozen between its decision to send and its write, and
    woken when another leads. What arrives is read from the queues, by who knows nothing of the
    beats. A tick is doubled if it comes within half of its period after the last one, or is the
    second of its minute; it is missed if it comes more than 15 s late, or there is none in its
    minute. RedBeat is struck in the same way at the same time, with a lock of the same length.

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
