"""How long tasks took: a histogram with buckets that grow, so that it is small and never full.

A bucket is a tenth longer than the one before it, so what is read from it is within 5 % of what was
put in. Counts may be fractions: old ones weigh less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

#: How much longer each bucket is than the one before it.
GROWTH = 1.1
#: What is shorter is as short as this, s; what is longer is as long.
SHORTEST_S, LONGEST_S = 1e-4, 1e7

_LOG_GROWTH = math.log(GROWTH)
#: A bucket with less than this is empty.
_NOTHING = 1e-3


@dataclass(slots=True)
class Durations:
    """Counts by bucket. One thread adds; another one looks at a `copy`."""

    counts: dict[int, float] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """One more."""
        bucket = _bucket(seconds)
        self.counts[bucket] = self.counts.get(bucket, 0.0) + 1.0

    def merge(self, other: Durations) -> None:
        """All of the other's too."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0.0) + count

    def fade(self, share: float) -> None:
        """Each counts only so much as before."""
        faded = {bucket: share * count for bucket, count in self.counts.items()}
        self.counts = {bucket: count for bucket, count in faded.items() if count >= _NOTHING}

    def copy(self) -> Durations:
        """One that nobody adds to."""
        return Durations(self.counts.copy())

    @property
    def count(self) -> float:
        """How many."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """So long or shorter is this share of them, s (nearest rank); None of none."""
        wanted = share * self.count
        below = 0.0
        for bucket in sorted(self.counts):
            below += self.counts[bucket]
            if below >= wanted:
                return _middle(bucket)
        return None

    def above(self, seconds: float) -> float:
        """How many took longer."""
        return sum(count for bucket, count in self.counts.items() if _middle(bucket) > seconds)

    def longer(self, times: float) -> Durations:
        """As if each had taken so many times longer, to the next bucket."""
        buckets = math.ceil(math.log(times) / _LOG_GROWTH)
        return Durations({bucket + buckets: count for bucket, count in self.counts.items()})

    def ranks_of(self, others: Durations) -> float:
        """Sum of the ranks of others among these: 0 is shorter than all, 1 longer, equal ½ of each.

        Divided by the number of the others it is the chance that one of them is longer than one of
        these (Mann and Whitney, 1947). 0 if there are none of either.
        """
        ranks, below, count = 0.0, 0.0, self.count
        if not count:
            return 0.0
        for bucket in sorted({*self.counts, *others.counts}):
            here = self.counts.get(bucket, 0.0)
            ranks += others.counts.get(bucket, 0.0) * (below + here / 2)
            below += here
        return ranks / count


def durations(counted: Mapping[float, float]) -> Durations:
    """Made from how many took so long, s."""
    made = Durations()
    for seconds, count in counted.items():
        bucket = _bucket(seconds)
        made.counts[bucket] = made.counts.get(bucket, 0.0) + count
    return made


def _bucket(seconds: float) -> int:
    return round(math.log(min(max(seconds, SHORTEST_S), LONGEST_S)) / _LOG_GROWTH)


def _middle(bucket: int) -> float:
    return GROWTH**bucket
