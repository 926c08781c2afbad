"""Which cache each job wants: few keys that are wanted much, and many that are wanted seldom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import accumulate
from random import Random

from bench.sim.work import Job


def zipf(keys: int, top: float) -> list[float]:
    """Shares of so many keys, falling by a power of their rank; the first one has `top`."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        first = 1.0 / sum(rank**-middle for rank in range(1, keys + 1))
        low, high = (middle, high) if first < top else (low, middle)
    weights = [rank**-low for rank in range(1, keys + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def name_keys(
    jobs: Iterable[Job], shares: list[float], rng: Random, *, repeat: float = 0.0, window: int = 4
) -> None:
    """Give each job a key, drawn by share; with probability `repeat` that of one of the last few.

    Work has such locality in time where one sender wants several of a kind in a row.
    """
    names = [f"k{n:02}" for n in range(len(shares))]
    rng.shuffle(names)
    bounds = list(accumulate(shares))
    recent: deque[str] = deque(maxlen=window)
    for job in jobs:
        if recent and rng.random() < repeat:
            job.key = rng.choice(recent)
        else:
            [job.key] = rng.choices(names, cum_weights=bounds)
        recent.append(job.key)
