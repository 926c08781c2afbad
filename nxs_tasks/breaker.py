"""Whether the broker takes messages, as this process saw it last.

Whoever meets a broker that does not answer pays for it with the whole time it was given. So one
pays, and the others are told: they do not ask until somebody has found that it answers again.
"""

from __future__ import annotations


class Breaker:
    """Closed: ask the broker. Open: do not, and say why. Safe to use in any thread."""

    def __init__(self) -> None:
        self._why = ""

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
        self._why = why or "no reason was given"
        return was_closed

    def heal(self) -> bool:
        """Close it; True if it was open."""
        was_open = bool(self._why)
        self._why = ""
        return was_open
