"""Wakes a thread that waits, also from within a signal handler.

`threading.Event` is no help there: its `set` takes a lock that is not reentrant, and a signal that
arrives while the same thread is inside waits for itself for ever. `SimpleQueue.put` is reentrant.
"""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class Waker:
    """One thread waits, any may wake it. A wake that comes before the wait is not lost."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """End the wait, or the next one. Returns at once."""
        self._calls.put(None)

    def wait(self, seconds: float) -> None:
        """Until somebody wakes, but no longer than so."""
        with suppress(Empty):
            self._calls.get(timeout=seconds)
        self.clear()

    def clear(self) -> None:
        """Forget what woke until now."""
        with suppress(Empty):
            while True:
                self._calls.get_nowait()
