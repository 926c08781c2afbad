"""Since when a worker's main process is known to be part of the fleet, readable in its pool.

The pool runs tasks in processes of its own, which go on while the main process is frozen. They
share one word of memory with it: the heartbeat writes, whoever is about to send something reads.
It is made before the pool forks.
"""

from __future__ import annotations

import mmap

#: Epoch and time lie in one word, so that they are read as they were written, together.
WORD_BITS = 64
TIME_BITS = 40
TIME_MASK = (1 << TIME_BITS) - 1
EPOCH_MASK = (1 << (WORD_BITS - TIME_BITS)) - 1


class Lease:
    """The last heartbeat that the broker confirmed: in which epoch, and when it was sent."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_ms = max_age_s * 1000
        self._memory = memoryview(mmap.mmap(-1, WORD_BITS // 8)).cast("Q")

    def renew(self, epoch: int, sent_at: float) -> None:
        """A heartbeat was confirmed; `sent_at` is `Clock.elapsed` (s) before it was sent."""
        when = int(sent_at * 1000) & TIME_MASK
        self._memory[0] = (epoch & EPOCH_MASK) << TIME_BITS | when

    def lapse(self) -> None:
        """The broker knows this process no more: whoever is about to send something asks."""
        self._memory[0] = 0

    def epoch(self) -> int | None:
        """The epoch that was confirmed last, or None if the broker knows this process not (yet)."""
        word = self._memory[0]
        return word >> TIME_BITS if word else None

    def fresh(self, epoch: int, now: float) -> bool:
        """Whether a process of that epoch was confirmed so lately that nobody has given it up.

        `now` is `Clock.elapsed`, s: one clock for all processes of a machine, which goes on while
        that is suspended.
        """
        word = self._memory[0]
        if not word or word >> TIME_BITS != epoch & EPOCH_MASK:
            return False
        return 0 <= now * 1000 - (word & TIME_MASK) <= self._max_age_ms
