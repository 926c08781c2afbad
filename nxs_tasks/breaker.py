"""Whether the broker takes messages, as this process saw it last.

Whoever meets a broker that does not answer pays for it with the whole time it was given. So one
pays, and the others are told: they do not ask until somebody has found that it answers again.
"""

from __future__ import annotations

from nxs_tasks.clock import SYSTEM

#: If nobody has tried the broker for so long, the next one does: some servers of applications let
#: no thread run, s.
OVERDUE_S = 30.0


class Breaker:
    """Closed: ask the broker. Open: do not, and say why. Safe to use in any thread."""

    def __init__(self) -> None:
        self._why = ""
        self._tried_at = SYSTEM.monotonic()

    @property
    def open(self) -> bool:
        """Whether the broker did not take the last message."""
        return bool(self._why)

    @property
    def why(self) -> str:
        """Why it is open; empty if it is closed."""
        return self._why

    def trip(self, why: str) -> bool:
        """Open it; True if it was closed."""
        was_closed = not self._why
        self.note_try()
        self._why = why or "no reason was given"
        return was_closed

    def heal(self) -> bool:
        """Close it; True if it was open."""
        was_open = bool(self._why)
        self._why = ""
        return was_open

    def note_try(self) -> None:
        """Somebody has tried the broker just now."""
        self._tried_at = SYSTEM.monotonic()

    def lets_through(self) -> bool:
        """Whether the broker is to be asked: if it is closed, and now and then if nobody tries."""
        if not self._why:
            return True
        if SYSTEM.monotonic() - self._tried_at < OVERDUE_S:
            return False
        self.note_try()
        return True
