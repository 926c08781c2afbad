"""The bench `placement`: how well work is placed, beside a bound and beside how others place.

One scenario a file, each with five seeds; the ratio is the median of the seeds' own ratios, shown
with the least and the most of them. All sides of a seed get the same jobs.

S1, many submitters and old metrics (`herd`, simulated)
    The mean wait beside a single queue from which every free slot takes: with equal machines
    nothing waits less. Fleets of 2, 8 and 16 instances with 4 slots at 50, 80 and 90 % load, even
    and uneven tasks (SCV 1 and 10), heartbeats every 1 to 30 s, 1 and 3 submitters. `NXS` is the
    worst of all 48; the others are shown at 80 % with one submitter. `unchecked` is the policy
    alone: as if a direct write were accepted whether or not the slot is still free. With the check
    a task either starts at once or waits in the shared queue, and then no choice can cost time
    where machines are equal: that is what `NXS` shows.
S2, equal work on equal workers (`workers`, real)
    2,000 tasks that sleep 20 to 200 ms, on 4 `celery worker` with one slot each and a server of
    their own. The peers are stock Celery: one shared queue with prefetch 1, late acknowledgements
    and `-O fair`, which is the bound within its overhead; and the same with Celery's own prefetch.
    The three sides run at the same time, so what disturbs the machine disturbs all.
S3, unequal machines (`speeds`, simulated)
    Speeds from ½ to 2. The 99th percentile of the time from arrival to end, beside one queue.

Simulated are the machines: view, policy and settings are those of a process that submits. What a
round trip costs is left out.
"""

from bench.placement.runner import run

__all__ = ["run"]
