"""How long something may still take, and calls that are given up when that time is over.

A time-out of a socket bounds one read. A name that is not resolved, a handshake of several steps, a
discovery by Sentinel are bounded by nothing: they are done in a thread that can be left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from nxs_tasks.clock import SYSTEM

T = TypeVar("T")
now = SYSTEM.monotonic

#: A time-out of 0 would make a socket non-blocking.
SHORTEST_S = 0.001


class Deadline:
    """So many seconds from now on."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = now() + seconds

    def remaining(self) -> float:
        """Seconds that are left; never 0, so that it can be a time-out."""
        left = self._end - now()
        return left if left > SHORTEST_S else SHORTEST_S

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return now() >= self._end

    def part(self, share: float) -> Deadline:
        """Another one, at that share of what is left."""
        return Deadline(self.remaining() * share)


class _Call:
    """One call in a thread of its own; whoever waits for it may leave."""

    def __init__(self, call: Callable[[], Any], late: Callable[[Any], object]) -> None:
        self._call = call
        self._late = late
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._left = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.error = error
        with self._lock:
            self._done.set()
            left = self._left
        if left and self.error is None:
            self._late(self.result)

    def wait(self, seconds: float) -> bool:
        """Whether it came back in time; else it is left to itself."""
        if self._done.wait(seconds):
            return True
        with self._lock:
            self._left = not self._done.is_set()
            return not self._left


def within(
    seconds: float, call: Callable[[], T], late: Callable[[T], object] = lambda result: None
) -> T:
    """What `call` returns or raises, if it does within so long; else raises `TimeoutError`.

    It then goes on in its thread, and what it returns is given to `late`.
    """
    job = _Call(call, late)
    try:
        threading.Thread(target=job.run, name="nxs-within", daemon=True).start()
    except RuntimeError:
        # None can be started: there are too many, or Python is about to end.
        return call()
    if not job.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:.2g} s")
    if job.error is not None:
        raise job.error
    return cast("T", job.result)
