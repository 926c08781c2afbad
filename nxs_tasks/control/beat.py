"""A beat of which several may run: one leads, by a lease with a term; the others stand by.

Celery's own beat must run once, and is lost with its machine. This scheduler renews a lease at
every tick and sends only while it holds it. The last run of each entry is kept beside the lease,
so that a successor neither repeats nor forgets: a daily job that ran this morning is not run again
because the leader changed at noon.

If the broker does not answer, nobody leads: a beat that cannot prove its lease sends nothing.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from celery.beat import Scheduler

from nxs_tasks.errors import AlreadySubmitted, NxsError
from nxs_tasks.runtime import runtime_of
from nxs_tasks.store.leases import BeatLease

log = logging.getLogger(__name__)

#: Failures in a row before a beat lets another one lead. One alone may be the fault of its entry.
MOST_FAILURES = 3


class FleetScheduler(Scheduler):
    """Celery's scheduler, made safe to run on several nodes. Set by `Fleet(app)`."""

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self._runtime = runtime_of(app)
        runtime = self._runtime
        self._lease = BeatLease(
            runtime.store(), runtime.app_name, runtime.identity(), runtime.settings.beat_lease
        )
        self._term: int | None = None  # of our lead, None while standing by
        self._renewed_at = float("-inf")
        self._failures = 0  # sendings in a row that failed
        super().__init__(app, *args, **kwargs)

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Send what is due; after several failures give up the lead."""
        try:
            sent = super().apply_async(entry, *args, **kwargs)
        except Exception as error:
            if isinstance(error.__context__, AlreadySubmitted):
                # The task of its last run is not done yet, and there is to be one at a time.
                log.info("%s is not sent: %s", entry.name, error.__context__)
                return None
            self._failures += 1
            raise
        self._failures = 0
        return sent

    @property
    def _renew_every(self) -> float:
        return self._runtime.settings.beat_lease / 3

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, if we lead; returns the seconds until the next call."""
        if not self._lead():
            return self._renew_every
        return min(float(super().tick(*args, **kwargs)), self._renew_every)

    def _lead(self) -> bool:
        now = self._runtime.clock.monotonic()
        if self._failures >= MOST_FAILURES:
            self._give_up_lead(now)
            return False
        if self._term is not None and now - self._renewed_at < self._renew_every:
            return True
        try:
            held, term = self._lease.acquire()
            if held and term != self._term:
                log.info("this beat leads, term %d", term)
                self._go_on_from(self._lease.runs())
        except NxsError as error:
            log.warning("this beat stands by: %s", error)
            held, term = False, 0
        if not held and self._term is not None:
            log.warning("this beat has lost the lead of term %d", self._term)
        self._term = term if held else None
        self._renewed_at = now
        return held

    def _give_up_lead(self, now: float) -> None:
        """Let another beat lead; stand by for one period, then try again."""
        log.warning("this beat could not send, and gives up the lead for a while")
        self._failures = 0
        try:
            self._lease.resign()
        except NxsError as error:
            log.warning("the lease is left to run out: %s", error)
        self._term = None
        self._renewed_at = now

    def _go_on_from(self, runs: dict[str, tuple[float, int]]) -> None:
        for name, (at, count) in runs.items():
            entry = self.schedule.get(name)
            if entry is not None:
                entry.last_run_at = datetime.fromtimestamp(at, UTC)
                entry.total_run_count = count
        self._heap = None

    @property
    def producer(self) -> None:
        """None, so that Celery's pool is used.

        A producer of the beat's own would go on with a connection that the server has closed, for
        ever, and what it sends is not spooled.
        """

    def reserve(self, entry: Any) -> Any:
        """Count a run, for us and for a successor."""
        new = super().reserve(entry)
        try:
            self._lease.set_run(new.name, new.last_run_at.timestamp(), new.total_run_count)
        except NxsError as error:
            log.warning("the run of %s is not remembered: %s", new.name, error)
        return new

    def close(self) -> None:
        """Resign, so that a successor need not wait for the lease to run out."""
        try:
            if self._term is not None:
                self._lease.resign()
        except NxsError as error:
            log.warning("the lease is left to run out: %s", error)
        super().close()

    @property
    def info(self) -> str:
        """Shown by `celery beat` at its start."""
        return f"    . lease -> {self._runtime.store().keys.beat_lease(self._runtime.app_name)}"
