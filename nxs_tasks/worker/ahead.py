"""When this worker takes a message ahead: only behind tasks that are known to be short."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from nxs_tasks.worker.capacity import taken_up
from nxs_tasks.worker.tally import Tally


def short_slots(
    tally: Tally,
    slots: Callable[[], int | None],
    limited: Callable[[], list[str]],
    below_s: float,
) -> Callable[[], int]:
    """How many slots there are, if all are taken by tasks whose mean time is below `below_s`.

    Else 0: also if a name has no mean yet, or something waits here for a rate limit, which Celery
    starts unasked.
    """

    def count() -> int:
        there = slots() or 0
        if not there or limited():
            return 0
        names = taken_up()
        short = all(tally.means.get(name, inf) < below_s for name in names)
        return there if short and len(names) >= there else 0

    return count
