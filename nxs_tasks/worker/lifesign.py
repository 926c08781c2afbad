"""Leaves a worker's life sign on its machine, each second: what `nxs probe` reads.

A thread of its own, because the heartbeat waits for the broker, and nobody may be taken for frozen
because a broker is.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.concurrency.solo import TaskPool as Solo
from celery.worker import state

from nxs_tasks import lifesign
from nxs_tasks.clock import SYSTEM
from nxs_tasks.errors import BrokerError
from nxs_tasks.lifesign import CONTROL, STARTING, Sign
from nxs_tasks.runtime import Runtime
from nxs_tasks.worker import supervised
from nxs_tasks.worker.consumption import slots_of

log = logging.getLogger(__name__)

#: Completes a sign with what only some kinds of workers know; `now` is monotonic, s.
Complete = Callable[[Sign, float], Sign]


class Lifesigns(threading.Thread):
    """Leaves a sign until stopped, and takes it away then."""

    def __init__(self, worker: Any, runtime: Runtime) -> None:
        super().__init__(name="nxs-lifesign", daemon=True)
        self._worker = worker
        self._fleet = runtime.settings.fleet
        self._path = lifesign.path_of(
            str(runtime.settings.state_path), self._fleet, worker.hostname
        )
        self._process = lifesign.process_of(os.getpid())
        self._complete: Complete = lambda sign, now: sign
        self._failing = False
        self._over = threading.Event()

    def start_with(self, complete: Complete) -> None:
        """Begin. The pool has forked by now: a fork does not copy threads."""
        self._complete = complete
        supervised.tell(supervised.READY)
        self.start()

    def run(self) -> None:
        """Leave signs until stopped."""
        while not self._over.is_set():
            try:
                self.leave()
            except Exception:
                # Whatever it is: a worker without signs would be ended while it works.
                log.exception("a life sign failed and is tried again")
            self._over.wait(lifesign.PERIOD_S)

    def stop(self) -> None:
        """End the thread, and take away what it has left: the process is about to end."""
        self._over.set()
        supervised.tell(supervised.STOPPING)
        if self.is_alive():
            self.join(timeout=2 * lifesign.PERIOD_S)
        with suppress(OSError, lifesign.Unreadable):
            # Another process may have the name by now.
            if lifesign.read(self._path).pid == os.getpid():
                os.unlink(self._path)

    def leave(self) -> None:
        """Leave one sign. Never waits for the broker."""
        now = SYSTEM.monotonic()
        sign = self._sign(now)
        if not lifesign.judge(sign, there=True, now=now).not_live:
            supervised.tell(supervised.ALIVE)
        try:
            lifesign.write(self._path, sign)
        except OSError as error:
            if not self._failing:
                log.warning("`nxs probe` is told nothing new of this worker: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _sign(self, now: float) -> Sign:
        worker = self._worker
        connected, turned = event_loop_of(worker)
        return self._complete(
            Sign(
                node=worker.hostname,
                fleet=self._fleet,
                pid=os.getpid(),
                process=self._process,
                written=now,
                state=STARTING,
                connected=connected,
                turned=turned,
                occupied=bool(state.active_requests)
                and isinstance(getattr(worker, "pool", None), Solo),
                running=len(state.active_requests),
                slots=slots_of(worker),
            ),
            now,
        )


def event_loop_of(worker: Any) -> tuple[bool, float | None]:
    """Whether the consumer is connected, and when its event loop turned last, monotonic, s."""
    connection = getattr(getattr(worker, "consumer", None), "connection", None)
    cycle = getattr(getattr(connection, "_transport", None), "cycle", None)
    turned: float | None = getattr(cycle, "turned", None)
    return connection is not None, turned


class ControlSign:
    """What the sign of a control worker says: no heartbeat knows whether its broker answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._store = runtime.new_store()
        self._period = runtime.settings.heartbeat_period
        self._asked_at = float("-inf")
        self._answers_since: float | None = None

    def __call__(self, sign: Sign, now: float) -> Sign:
        """Complete it; asks the broker now and then."""
        if now - self._asked_at >= self._period:
            self._asked_at = now
            self._answers_since = self._ask(now)
        return sign.having(state=CONTROL, answers_since=self._answers_since)

    def _ask(self, now: float) -> float | None:
        try:
            self._store.ping()
        except BrokerError:
            return None
        return now if self._answers_since is None else self._answers_since
