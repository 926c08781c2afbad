"""Simulated time: what is due next happens next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

#: Wall time at the start, s: a clock that shows 0 would hide who takes 0 for "never".
EPOCH_S = 1_000_000.0


class Loop:
    """Calls in the order of their times; those of one instant in the order in which they came."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., object], Any]] = []
        self._numbers = count()

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call at a time, s; one that is past is now."""
        heapq.heappush(self._due, (max(when, self.now), next(self._numbers), call, arguments))

    def run(self, until: float = inf) -> None:
        """Go on until nothing is due any more, or until a time."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(due)
            call(*arguments)

    def every(self, period: float, call: Callable[[], object], while_: Callable[[], bool]) -> None:
        """Call now and after each period, as long as a condition holds."""
        if while_():
            call()
            self.at(self.now + period, self.every, period, call, while_)


class LoopClock:
    """The clock of everything that runs in a loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Wall time, s."""
        return EPOCH_S + self._loop.now

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._loop.now

    def elapsed(self) -> float:
        """The same: no machine is suspended here."""
        return self._loop.now
