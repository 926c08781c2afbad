"""A beat of which several may run: one leads, by a lease with a term; the others stand by.

Celery's own beat must run once, and is lost with its machine. This scheduler renews a lease, and
each of its runs is sent by a script that looks whether the sender leads in its term and whether the
run was not sent before, and keeps it as the entry's last one (`store/tick.py`). So a leader may die
at any moment, or freeze and wake: a run is sent once, by this leader or by the next.

If the broker does not answer, nobody leads: a beat that cannot prove its lease sends nothing. What
is due then is sent when it answers again, and not kept on this machine, where a successor could not
see it.

Time is the server's. Entries count from when a beat first led them, also across restarts.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import Scheduler, SchedulingError
from celery.schedules import schedule as Interval
from celery.utils.time import maybe_make_aware
from kombu.utils.uuid import uuid

from nxs_tasks.control.server_time import ServerTime
from nxs_tasks.errors import AlreadySubmitted, NxsError, SubmissionRejected
from nxs_tasks.model.lead import Run
from nxs_tasks.runtime import runtime_of
from nxs_tasks.store.leases import BeatLease, read_run
from nxs_tasks.store.message import TERM_HEADER
from nxs_tasks.store.tick import AnotherRun, NotLeading
from nxs_tasks.store.ticket import Ticket, sending

log = logging.getLogger(__name__)

#: Failures in a row before a beat lets another one lead. One alone may be the fault of its entry.
MOST_FAILURES = 3
#: After a message that the broker could not take, s.
RETRY_S = 1.0
#: A lease is renewed so often while it lasts.
RENEWALS = 3
#: Who stands by asks so long after the lease of the leader has run out, s.
AFTER_LEASE_S = 0.01
#: The server's clock was set if it is off by more than this, s: an answer may take a while.
STEP_S = 2.0


class FleetScheduler(Scheduler):
    """Celery's scheduler, made safe to run on several nodes. Set by `Fleet(app)`."""

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self._runtime = runtime_of(app)
        runtime = self._runtime
        self._clock = runtime.clock
        self._lease = BeatLease(
            runtime.store(), runtime.app_name, runtime.identity(), runtime.settings.beat_lease
        )
        self._time = ServerTime(runtime.clock)
        self._term: int | None = None  # of our lead, None while standing by
        self._asked_at = float("-inf")  # `Clock.elapsed`, s
        self._known: dict[str, str] = {}  # entry to its last run, as it stands in Redis
        self._failures = 0  # sendings in a row that failed
        self._pause_s = 0.0
        super().__init__(app, *args, **kwargs)

    # leading

    @property
    def _renew_every(self) -> float:
        return self._runtime.settings.beat_lease / RENEWALS

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, if we lead; returns the seconds until the next call."""
        stand_by_s = self._ask()
        if self._term is None:
            return stand_by_s
        self._pause_s = 0.0
        due_s = max(float(super().tick(*args, **kwargs)), self._pause_s)
        renew_s = self._asked_at + self._renew_every - self._clock.elapsed()
        return max(0.0, min(due_s, renew_s))

    def _ask(self) -> float:
        """Take the lead or renew it, if it is time; for how long to stand by if we have it not."""
        now = self._clock.elapsed()
        if self._failures >= MOST_FAILURES:
            self._give_up_lead()
            return self._renew_every
        if self._term is not None and now - self._asked_at < self._renew_every:
            return 0.0
        before, self._asked_at = self._term, now
        try:
            standing = self._lease.acquire()
            self._heed(self._time.set(standing.at, now))
            self._term = standing.term if standing.leads else None
            if self._term is not None and self._term != before:
                log.info("this beat leads, term %d", standing.term)
                self._take_on()
        except NxsError as error:
            log.warning("this beat stands by: %s", error)
            self._term = None
            return self._renew_every
        if before is not None and self._term != before:
            log.warning("this beat has lost the lead of term %d", before)
        return min(self._renew_every, standing.left_s + AFTER_LEASE_S)

    def _give_up_lead(self) -> None:
        """Let another beat lead; stand by for one period, then try again."""
        log.warning("this beat could not send, and gives up the lead for a while")
        self._failures = 0
        self._term = None
        try:
            self._lease.resign()
        except NxsError as error:
            log.warning("the lease is left to run out: %s", error)

    def close(self) -> None:
        """Resign, so that a successor need not wait for the lease to run out."""
        self._term = None
        try:
            self._lease.resign(ends=True)
        except NxsError as error:
            log.warning("the lease is left to run out: %s", error)
        super().close()

    # the schedule

    def _take_on(self) -> None:
        """Go on where the leader before was; an entry that nobody has led counts as it does here.

        Raises `BrokerError`.
        """
        term, now = self._term or 0, self._now().timestamp()
        since = {}
        for name, entry in self.schedule.items():
            # By the clock that has set it: this may be before anybody has told us the time.
            age = (maybe_make_aware(entry.default_now()) - _aware(entry)).total_seconds()
            schedule = entry.schedule
            if schedule.nowfun is None or _is_ours(schedule.nowfun):
                schedule.nowfun = self._now
            entry.last_run_at = _moment(now - max(0.0, age))
            since[name] = self._run_of(entry, term=0)
        self._known = self._lease.adopt(term, since)
        for name, text in self._known.items():
            run, entry = read_run(name, text), self.schedule[name]
            if run is not None:
                # It may have been another server's clock, or one that was set back since.
                at = min(run.at, now) if isinstance(entry.schedule, Interval) else run.at
                entry.last_run_at, entry.total_run_count = _moment(at), run.count
        self._heap = None

    def _now(self) -> datetime:
        """The server's time as an entry's schedule reads it."""
        at = self._time.now()
        found: datetime = self.app.now()
        return found if at is None else _moment(at).astimezone(found.tzinfo)

    def _heed(self, step_s: float) -> None:
        """The server's clock was set by so much: no interval is longer or shorter for that."""
        if abs(step_s) < STEP_S:
            return
        log.warning("the clock of the broker's server was set by %+.1f s", step_s)
        for entry in self.schedule.values():
            if isinstance(entry.schedule, Interval):
                entry.last_run_at = _aware(entry) + timedelta(seconds=step_s)
        self._heap = None

    def _run_of(self, entry: Any, *, term: int, task_id: str = "") -> Run:
        """An entry's last run, as it is kept."""
        due: float | None = None
        try:
            left = entry.schedule.remaining_estimate(entry.last_run_at)
            due = self._now().timestamp() + left.total_seconds()
        except Exception:
            # A schedule of the user's own need not tell.
            log.debug("when %s is due is not known", entry.name, exc_info=True)
        at, count = _aware(entry).timestamp(), entry.total_run_count
        return Run(at=at, count=count, term=term, task_id=task_id, due=due)

    # sending

    @property
    def producer(self) -> None:
        """None, so that Celery's pool is used, and each message passes the outbox.

        A producer of the beat's own would go on with a connection that the server has closed, for
        ever.
        """

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send a run that is due, if we lead and nobody has sent it."""
        new = self.reserve(entry) if advance else self.schedule[entry.name]
        term = self._term or 0
        task_id = str(entry.options.get("task_id") or uuid())
        run = self._run_of(new, term=term, task_id=task_id)
        tick = self._lease.tick(entry.name, self._known.get(entry.name, ""), run)
        ticket = Ticket(tick, self._lease.count)
        headers = {**(entry.options.get("headers") or {}), TERM_HEADER: term}
        options = {**entry.options, "headers": headers, "task_id": task_id}
        signed = type(entry)(**dict(entry, options=options))
        try:
            with sending(ticket):
                sent = super().apply_async(signed, producer=producer, advance=False, **kwargs)
            if not ticket.taken:
                # Not by our sender: run at once (`task_always_eager`), or by a task's own way.
                ticket.count_now()
        except (SchedulingError, NxsError) as error:
            if not self._is_settled(entry, ticket, error):
                self._failures += 1
                raise
            return None
        self._known[entry.name] = tick.run
        self._failures = 0
        return sent

    def _is_settled(self, entry: Any, ticket: Ticket, error: Exception) -> bool:
        """Whether an error is none of the sending; the run counts then, or is due as before."""
        cause = error.__context__ if isinstance(error, SchedulingError) else error
        if ticket.counted:
            self._known[entry.name] = ticket.tick.run
            # The task of its last run is not done yet, and there is to be one at a time.
            settled = isinstance(cause, AlreadySubmitted)
        else:
            settled = isinstance(cause, NotLeading | AnotherRun)
            if settled:
                self._put_back(entry)
                # With the next lease it is known how things stand.
                self._term, self._asked_at = None, float("-inf")
            elif isinstance(cause, SubmissionRejected) and cause.for_now:
                self._put_back(entry)
                self._pause_s = RETRY_S
            # As in Celery, what fails by its own fault counts as a run, or it would be for ever.
        if settled:
            level = logging.INFO if isinstance(cause, AlreadySubmitted) else logging.WARNING
            log.log(level, "%s is not sent: %s", entry.name, cause)
        return settled

    def _put_back(self, entry: Any) -> None:
        self.schedule[entry.name] = entry
        self._heap = None

    @property
    def info(self) -> str:
        """Shown by `celery beat` at its start."""
        return f"    . lease -> {self._runtime.store().keys.beat_lease(self._runtime.app_name)}"


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _aware(entry: Any) -> datetime:
    """The last run of an entry. A naive time of Celery's is UTC."""
    found: datetime = entry.schedule.maybe_make_aware(entry.last_run_at)
    return found


def _is_ours(nowfun: Any) -> bool:
    return isinstance(getattr(nowfun, "__self__", None), FleetScheduler)
