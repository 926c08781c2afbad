"""The server's time in a process that cannot ask for it all the time.

All beats go by it, so that a successor sees the last runs as the leader before saw them, whatever
the clocks of their machines say. Between two answers of the server the machine's steady clock
carries it on, which nobody sets.
"""

from __future__ import annotations

from nxs_tasks.clock import Clock


class ServerTime:
    """The time of one server, as it was told last and as it has gone on since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: float | None = None  # of the steady clock, s

    def set(self, at: float, asked_at: float) -> float:
        """The server answers that it is `at`, to a question of `asked_at` (`Clock.elapsed`, s).

        Returns by how much its clock was set since the last answer, s. That is exact to half of the
        time that the answer took.
        """
        ahead = at - (asked_at + self._clock.elapsed()) / 2
        before, self._ahead = self._ahead, ahead
        return 0.0 if before is None else ahead - before

    def now(self) -> float | None:
        """The server's time, s; None if it was never told."""
        return None if self._ahead is None else self._ahead + self._clock.elapsed()
