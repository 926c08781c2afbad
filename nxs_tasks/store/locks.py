"""Locks that are free as soon as their holder is no more, and that only their holder can free.

A task holds a lock by its message: until it gives the lock up, ends, or the message is taken from
its process. No time-out is guessed, so a task may be long. Who holds outside of a task has a lease,
which a thread renews for as long as the process lives and reaches the server; and if it is part of
a worker, no longer than that has its place in the fleet, in that epoch.
"""

from __future__ import annotations

import logging
import secrets
import threading
from functools import partial
from types import TracebackType
from typing import Literal

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerError, LockTaken, Stale
from nxs_tasks.store.guard import held_in
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.token import Token

log = logging.getLogger(__name__)

#: A waiter looks again after so long, s; twice as long each time, up to the longest pause.
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.25
#: The number of a lock that nobody holds is kept for so long: one day.
KNOWN_FOR_MS = 24 * 3600 * 1000
#: The lease is renewed so often while it lasts.
RENEWALS = 3


class Lock:
    """One lock. `with` takes it and gives it up; a lock may be used again, by one at a time.

    It is not re-entrant: who holds it and asks for it once more, through the same or another
    object, waits for itself. Every method raises `BrokerError`.
    """

    def __init__(
        self,
        store: FleetStore,
        name: str,
        *,
        owner: str,
        task: Token | None = None,
        place: tuple[str, int] | None = None,
        wait_s: float = 10.0,
        lease_s: float = 30.0,
    ) -> None:
        """`place` is the instance and epoch of the worker of which the owner is part."""
        self.name = name
        self._store = store
        self._whose = owner
        self._task = task
        self._place = place
        self._wait_s = wait_s
        self._lease_ms = max(1, int(lease_s * 1000))
        self._key = store.keys.lock(name)
        self._asking = ""
        self._owner = ""
        self._number: int | None = None
        self._renewal: _Renewal | None = None

    @property
    def token(self) -> int:
        """A number that is higher at every acquisition of this name: for storage of your own.

        Raises `Stale` while the lock is not held through this object.
        """
        if self._number is None:
            raise Stale(f"the lock {self.name!r} is not held")
        return self._number

    def acquire(self, wait_s: float | None = None) -> bool:
        """Take the lock, waiting up to `wait_s` (s; None = as it was made); False if not in time.

        Raises `Stale` if the message of the task that asks was taken from its process.
        """
        # A name for each acquisition. Where it is not known what became of the last one, the same.
        self._asking = self._asking or f"{self._whose}/{secrets.token_hex(6)}"
        attempt = partial(self._try, self._asking)
        wait_s = self._wait_s if wait_s is None else wait_s
        taken = wait_until(attempt, wait_s, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._asking = ""
        if not taken:
            return False
        if self._task is None:
            self._renewal = _Renewal(self, self._lease_ms / 1000 / RENEWALS)
            self._renewal.start()
        return True

    def _try(self, owner: str) -> bool:
        inflight = held_in(self._store, self._task) if self._task is not None else ""
        instance, epoch = self._place or ("", "")
        record = self._store.keys.instance(instance) if instance else ""
        answer, number = self._store.call(
            "acquire_lock",
            # Redis wants keys; without a task, or outside of workers, they are not looked at.
            [self._key, inflight or self._key, record or self._key],
            [owner, str(self._task or ""), self._lease_ms, KNOWN_FOR_MS, epoch],
        )
        if answer < 0:
            raise Stale(f"lock {self.name!r}: the message of {self._task} was taken from it")
        if answer:
            self._owner, self._number = owner, int(number)
        return bool(answer)

    def renew(self) -> bool:
        """Hold it for another lease; False if it was lost. A task holds until it ends anyway."""
        if self._number is None:
            return False
        arguments = [self._owner, self._lease_ms, KNOWN_FOR_MS]
        return bool(self._store.call("renew_lock", [self._key], arguments))

    def release(self) -> bool:
        """Give it up; False if it was lost before. Never frees what is another's meanwhile."""
        if self._number is None:
            return False
        self._number = None
        if self._renewal is not None:
            self._renewal.stop()
            self._renewal = None
        return bool(self._store.call("release_lock", [self._key], [self._owner, KNOWN_FOR_MS]))

    def __enter__(self) -> Lock:
        """Take it. Raises `LockTaken` if another holds it for too long, `Stale`."""
        if not self.acquire():
            raise LockTaken(
                f"the lock {self.name!r} is held by another, and was not free within "
                f"{self._wait_s:g} s"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Give it up. Raises `Stale` if it was lost: then something else may have run beside."""
        if not self.release() and kind is None:
            raise Stale(f"the lock {self.name!r} was lost while it was held")
        return False


class _Renewal(threading.Thread):
    """Renews a lock for as long as it is held and this process lives."""

    def __init__(self, lock: Lock, every_s: float) -> None:
        super().__init__(name=f"nxs-lock-{lock.name}", daemon=True)
        self._lock = lock
        self._every_s = every_s
        self._over = threading.Event()

    def run(self) -> None:
        """Until stopped, or the lock is lost."""
        while not self._over.wait(self._every_s):
            try:
                if not self._lock.renew():
                    if not self._over.is_set():
                        log.warning("the lock %r was lost while it was held", self._lock.name)
                    return
            except BrokerError as error:
                log.warning("the lock %r is not renewed: %s", self._lock.name, error)

    def stop(self) -> None:
        """End, and wait for a renewal that is under way."""
        self._over.set()
        if self is not threading.current_thread():
            self.join()
