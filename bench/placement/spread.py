"""What the seeds say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.catalog import BenchError
from bench.figure import Figure, Goal

BENCH = "placement"


@dataclass(frozen=True, slots=True)
class Spread:
    """One number of ours and one of the peer for each seed, in the same order."""

    ours: Sequence[float]
    peer: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours / peer, seed by seed. Raises `BenchError` where the peer's is nothing."""
        if not all(self.peer):
            raise BenchError(f"nothing to compare with: the peer has {list(self.peer)}")
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """The median."""
        return median(self.ratios)

    def figure(self, metric: str, unit: str, peer: str, goal: Goal | None = None) -> Figure:
        """The figure of all seeds."""
        return Figure(
            bench=BENCH,
            metric=metric,
            value=median(self.ours),
            unit=unit,
            peer=peer,
            peer_value=median(self.peer),
            ratio=self.ratio,
            least=min(self.ratios),
            most=max(self.ratios),
            goal=goal,
        )


def alone(
    values: Sequence[float],
    metric: str,
    unit: str,
    goal: Goal | None = None,
    of: Callable[[Sequence[float]], float] = median,
) -> Figure:
    """The figure of one number for each seed that has no peer; `of` makes one of them."""
    return Figure(
        bench=BENCH,
        metric=metric,
        value=of(values),
        unit=unit,
        least=min(values),
        most=max(values),
        goal=goal,
    )
