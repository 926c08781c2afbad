"""Paired rounds: two sides take short turns in one process, so that noise hits both alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from time import perf_counter
from typing import Protocol


class Side(Protocol):
    """One of the two that are compared."""

    def enter(self) -> None:
        """Get ready for a turn. Not timed."""

    def turn(self) -> None:
        """Do a turn's work. Timed."""

    def leave(self) -> None:
        """Clear up after a turn. Not timed."""


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds that each side took for the same number of turns."""

    ours_s: float
    peer_s: float
    turns: int

    @property
    def ratio(self) -> float:
        """Ours / peer."""
        return self.ours_s / self.peer_s


@dataclass(frozen=True, slots=True)
class Result:
    """What the rounds say together."""

    rounds: tuple[Round, ...]

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return median(r.ratio for r in self.rounds)

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the rounds' ratios."""
        low, _, high = quantiles([r.ratio for r in self.rounds], n=4, method="inclusive")
        return low, high

    def per_turn(self, pick: Callable[[Round], float]) -> float:
        """Median over the rounds of one side's seconds per turn."""
        return median(pick(r) / r.turns for r in self.rounds)


def take_turns(ours: Side, peer: Side, *, at_least_s: float, first: int = 0) -> Round:
    """One round: pairs of turns until ours has taken `at_least_s`.

    Who goes first changes with every pair; `first` says who begins (0 = ours, 1 = the peer).
    """
    spent = [0.0, 0.0]
    sides = (ours, peer)
    with collected():
        for pair in count(first):
            for side in (pair % 2, 1 - pair % 2):
                spent[side] += _timed(sides[side])
            if spent[0] >= at_least_s:
                return Round(spent[0], spent[1], pair - first + 1)
    raise AssertionError("count() does not end")


def _timed(side: Side) -> float:
    side.enter()
    try:
        start = perf_counter()
        side.turn()
        return perf_counter() - start
    finally:
        side.leave()


@contextmanager
def collected() -> Iterator[None]:
    """Collect garbage now and none within: a collection would hit whoever's turn it is."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that `percent` of the samples do not exceed."""
    return quantiles(samples, n=100, method="inclusive")[percent - 1]
