"""The bench `lifecycle`: what becomes of a fleet whose processes die, freeze and lie.

One scenario a file.

Zombies (`zombies`, real)
    Five workers at a time, each with a server of its own and the settings as they are. Each suffers
    the same again and again, without a restart: its consumer is cancelled by remote control, the
    connection by which it takes messages is killed, or is watched by its event loop no more. Found
    is when its heartbeat says so; working, when a task begins that was sent 0.3 s after the fault.
    A stock worker comes back from a killed connection too, and from the others never. And workers
    whose slots are always taken, with all periods a fiftieth: whatever is found there is false.
"""

from bench.lifecycle.runner import run

__all__ = ["run"]
