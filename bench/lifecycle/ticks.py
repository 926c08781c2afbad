"""What has arrived of a schedule, and whether a tick of it was doubled or missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SECOND, MINUTE = "leaders.second", "leaders.minute"
MINUTE_S = 60.0
#: Later than this is missed, s.
LATEST_S = 15.0
#: Two that are closer than this share of their period are one tick, doubled.
TOO_CLOSE = 0.5


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one task or of several."""

    ticks: int = 0
    doubled: int = 0
    missed: int = 0
    latest_s: float = 0.0
    closest_s: float = float("inf")

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.ticks + other.ticks,
            self.doubled + other.doubled,
            self.missed + other.missed,
            max(self.latest_s, other.latest_s),
            min(self.closest_s, other.closest_s),
        )


def of_interval(arrived: Sequence[float], period_s: float) -> Tally:
    """Times at which a task arrived that is due so long after its last run."""
    gaps = [b - a for a, b in pairwise(arrived)]
    return Tally(
        ticks=len(arrived),
        doubled=sum(gap < TOO_CLOSE * period_s for gap in gaps),
        missed=sum(gap > period_s + LATEST_S for gap in gaps),
        latest_s=max((gap - period_s for gap in gaps), default=0.0),
        closest_s=min(gaps, default=float("inf")),
    )


def of_minutes(arrived: Sequence[float]) -> Tally:
    """Wall times at which a task arrived that is due at the beginning of each minute."""
    minutes = Counter(int(at // MINUTE_S) for at in arrived)
    late = [at % MINUTE_S for at in arrived]
    never = (max(minutes) - min(minutes) + 1 - len(minutes)) if minutes else 0
    return Tally(
        ticks=len(arrived),
        doubled=sum(count - 1 for count in minutes.values()),
        missed=never + sum(s > LATEST_S for s in late),
        latest_s=max(late, default=0.0),
        closest_s=min((b - a for a, b in pairwise(arrived)), default=float("inf")),
    )
