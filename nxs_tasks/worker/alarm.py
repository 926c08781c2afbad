"""Wakes a thread, also from a signal handler.

`threading.Event.set` takes a lock. A signal handler runs in the main thread between any two of its
instructions, also while that thread itself is within `set`: it would wait for itself for ever.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue


class Alarm:
    """As an `Event` for one waiting thread; `set` may interrupt itself."""

    def __init__(self) -> None:
        # Its `put` is reentrant by promise.
        self._rung: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Wake whoever waits, now or next."""
        self._rung.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, or the time is over; whether it was, which is used up by that."""
        try:
            self._rung.get(timeout=seconds)
        except Empty:
            return False
        self.clear()
        return True

    def clear(self) -> None:
        """Forget that it was set."""
        while not self._rung.empty():
            try:
                self._rung.get_nowait()
            except Empty:
                return
