"""The only reader of time.

Wall time (`now`, seconds since 1970, UTC) is for what is stored or shown; monotonic time is for
measuring how long something took. A lint rule keeps `time.time()` out of every other file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn, Protocol


class Clock(Protocol):
    """What every part that needs time is given."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""

    def elapsed(self) -> float:
        """The same, but it goes on while the machine is suspended."""


#: Linux stops its monotonic clock with the machine.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        return time.monotonic()

    def elapsed(self) -> float:
        """The same, but it goes on while the machine is suspended."""
        return time.clock_gettime(_ELAPSED)


class FakeClock:
    """A clock that moves only when told to: `clock.advance(30)`."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since 1970, as set."""
        return self._now

    def monotonic(self) -> float:
        """The same number: a fake clock has no second origin."""
        return self._now

    def elapsed(self) -> float:
        """The same number once more."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds


SYSTEM = SystemClock()


def wait_until(
    condition: Callable[[], bool],
    deadline_s: float,
    poll_s: float = 0.05,
    slowest_s: float | None = None,
) -> bool:
    """Poll `condition` until it holds (True) or `deadline_s` seconds have passed (False).

    With `slowest_s` each pause is twice as long as the one before, up to so long.
    """
    end = time.monotonic() + deadline_s
    while True:
        if condition():
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(poll_s if slowest_s is None else min(poll_s, left))
        if slowest_s is not None:
            poll_s = min(2 * poll_s, slowest_s)


def repeat(action: Callable[[], None], every_s: float) -> NoReturn:
    """Do something again and again, until it raises (as Ctrl-C does)."""
    while True:
        action()
        time.sleep(every_s)


def iso(at: float) -> str:
    """`2026-02-22T12:00:00Z` for a wall time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
