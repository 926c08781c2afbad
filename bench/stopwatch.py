"""A clock that stands still while it is the peer's turn."""

from __future__ import annotations

from nxs_tasks.clock import SYSTEM, Clock


class Stopwatch:
    """The clock of a fleet that takes turns with its peer.

    What a submitter does once a second belongs to each second that it submits. On the machine's
    clock it would fall due during the peer's turns as well, and be counted twice.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._before = 0.0
        self._since: float | None = None

    def now(self) -> float:
        """Seconds since 1970, UTC; never stands still."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds that it has run."""
        if self._since is None:
            return self._before
        return self._before + self._clock.monotonic() - self._since

    def elapsed(self) -> float:
        """The same."""
        return self.monotonic()

    def start(self) -> None:
        """Go on."""
        self._since = self._clock.monotonic()

    def advance(self, seconds: float) -> None:
        """Go on by so much at once."""
        self._before += seconds

    def stop(self) -> None:
        """Stand still."""
        self._before = self.monotonic()
        self._since = None
