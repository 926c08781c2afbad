"""Which of several waiting jobs a free slot takes: the rules of `claim.lua`."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from itertools import islice

from bench.sim.work import Job

#: So many of the oldest jobs are looked at, where one may be chosen.
LOOK = 16


def take_shared(queue: deque[Job], warm: Collection[str], longest_s: float, now: float) -> Job:
    """Take the oldest of a queue that is not empty, or one behind it whose key is warm."""
    oldest = queue[0]
    if warm and now - oldest.arrives <= longest_s:
        for n, job in enumerate(islice(queue, LOOK)):
            if job.key in warm:
                del queue[n]
                return job
    return queue.popleft()


def take_from_another(
    line: deque[Job], warm: Collection[str], longest_s: float, now: float
) -> Job | None:
    """Take the oldest job of another machine's line that may be taken from it."""
    for n, job in enumerate(islice(line, LOOK)):
        if not job.key or job.key in warm or now - job.arrives > longest_s:
            del line[n]
            return job
    return None
