"""What the seeds say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from bench.figure import Figure, Goal

BENCH = "lifecycle"
NONE = Goal("value", "<=", 0.0)


def figure(
    metric: str,
    values: Sequence[float],
    unit: str,
    goal: Goal | None = None,
    *,
    of: Callable[[Sequence[float]], float] = median,
    peer: tuple[str, Sequence[float]] | None = None,
) -> Figure:
    """The figure of one number for each seed; `of` makes one of them, of the peer's too."""
    return Figure(
        bench=BENCH,
        metric=metric,
        value=of(values),
        unit=unit,
        peer=peer and peer[0],
        peer_value=peer and of(peer[1]),
        least=min(values),
        most=max(values),
        goal=goal,
    )
