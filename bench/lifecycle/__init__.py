"""The bench `lifecycle`: whether the states of instances can be trusted. One scenario a file.

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
