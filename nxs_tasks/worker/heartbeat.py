"""The heartbeat of one instance: a thread of its own with a connection of its own.

A thread, because a synchronous client on the event loop would freeze the worker for as long as a
frozen broker does. When the broker is away it goes on trying; when it is back it resumes. It does
not wait a whole period for that: an answer that does not come has cost some seconds already, and
with few more such the instance would be taken for a ZOMBIE.

It is also how a process learns that the fleet has given it up. Taken for a ZOMBIE, it still holds
what it holds, and announces itself again, unless its consumer takes no work: then that is why, and
it waits until it takes some. Declared GONE, or without a record (a restart of the
broker without persistence), it holds nothing any more: it joins with a new epoch. If another
process has its name, it takes no work any more and ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from nxs_tasks.clock import Clock
from nxs_tasks.errors import JoinRefused, NameTaken, NxsError, Stale
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Load, Profile
from nxs_tasks.model.state import ENDED, Event, State
from nxs_tasks.policy.fleet.transitions import TRANSITIONS, next_state
from nxs_tasks.probes.host import read_host
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.queues import Queues
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.consumption import Consumption
from nxs_tasks.worker.lease import Lease
from nxs_tasks.worker.tally import Tally
from nxs_tasks.worker.waking import Waker

log = logging.getLogger(__name__)

#: Weight of the newest round trip in the reported latency.
SMOOTHING = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is; under which name and epoch says its tenure."""

    process: str  # host/pid
    profile: Profile


class Heartbeat(threading.Thread):
    """Sends `beat()` every period until stopped; faster while JOINING."""

    def __init__(
        self,
        store: FleetStore,
        identity: Identity,
        tenure: Tenure,
        tally: Tally,
        settings: Settings,
        clock: Clock,
        look: Callable[[float], Consumption],
        upkeep: Callable[[], object] = lambda: None,
        on_new_epoch: Callable[[int], None] = lambda epoch: None,
        on_replaced: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
        lease: Lease | None = None,
    ) -> None:
        super().__init__(name="nxs-heartbeat", daemon=True)
        self._store = store
        self._queues = Queues(store)
        self._identity = identity
        self._tenure = tenure
        self._upkeep = upkeep
        self._on_new_epoch = on_new_epoch
        self._on_replaced = on_replaced
        self._on_drain = on_drain
        self._lease = lease or Lease(settings.gone_after)
        tenure.on_displaced = tenure.on_kept = self._wake
        self._tally = tally
        self._settings = settings
        self._clock = clock
        #: What the pool and the consumer are doing at a time, monotonic, s.
        self.look = look
        self._latency_ms: float | None = None
        self._state = State.JOINING
        self._failing = False
        #: Since when the broker answers without a break, and when it did last, monotonic, s.
        self._answers_since: float | None = None
        self._answered_at = 0.0
        self._replaced = False
        self._leaving = ""
        self._over = threading.Event()
        self._woken = Waker()
        self._left = threading.Event()

    @property
    def state(self) -> State:
        """What the broker said last that we are."""
        return self._state

    def run(self) -> None:
        """Beat until stopped."""
        while not self._over.is_set():
            self._woken.clear()
            try:
                self.beat_safely()
            except Exception:
                # Whatever it is: a worker without a heartbeat would be given up while it works.
                log.exception("a heartbeat failed and is tried again")
            self._woken.wait(self._period())

    @property
    def leaving(self) -> str:
        """Why this process shuts down; "" while it does not."""
        return self._leaving

    def answers_since(self, now: float) -> float | None:
        """Since when the broker answers without a break, s; None if it does not. `now` likewise."""
        patience = self._settings.heartbeat_period + 3 * self._settings.broker_timeout
        return self._answers_since if now - self._answered_at <= patience else None

    def _wake(self) -> None:
        self._woken.wake()

    def leave(self, reason: str) -> None:
        """Announce a graceful shutdown. Safe in a signal handler: the thread does the work."""
        self._leaving = self._leaving or reason
        self._woken.wake()

    def leave_now(self, reason: str) -> None:
        """Announce a graceful shutdown, and wait until it is known or the broker is too slow."""
        self.leave(reason)
        self._left.wait(2 * self._settings.broker_timeout)

    def stop(self) -> None:
        """End the thread, and say that the process is finished."""
        self._over.set()
        self._woken.wake()
        if self.is_alive():
            self.join(timeout=2 * self._settings.broker_timeout)
        self.beat_safely(last=True)

    def beat_safely(self, last: bool = False) -> None:
        """One heartbeat; a failure is logged once for each outage, and tried again at the next."""
        try:
            self.beat(last=last)
        except Stale as error:
            self._lease.lapse()
            self._recover(error, last)
        except NxsError as error:
            if not self._failing:
                refused = isinstance(error, JoinRefused)
                log.warning("%s: %s", "no work here" if refused else "heartbeats pause", error)
            self._failing, self._answers_since = True, None
        else:
            if self._failing:
                log.warning("heartbeats resume")
            self._failing = False

    def beat(self, last: bool = False) -> None:
        """Look, and write what was seen. Raises `BrokerError`, `Stale`."""
        load = self.observe()
        epoch, sent_at = self._tenure.epoch, self._clock.elapsed()
        confirmed = self._store.heartbeat(
            self._tenure.instance,
            self._tenure.epoch,
            load,
            longest_gap_s=self._settings.longest_gap,
            succeeded=self._tally.succeeded,
            failed=self._tally.failed,
            window_days=self._settings.outcome_days,
            last=last,
        )
        self._state, self._tenure.cordoned = confirmed.state, confirmed.cordoned
        self._tenure.state = self._state
        self._note_answer()
        if self._state not in ENDED:
            self._lease.renew(epoch, sent_at)
        if confirmed.drain and not self._leaving:
            # The control message may not have come: it is told once, and to who listens then.
            self._leaving = f"drained {confirmed.drain}"
            self._on_drain()
        if self._leaving:
            self._announce_leaving()
        elif self._state is State.ZOMBIE and not last:
            self._wake_up(load)
        elif self._state in ENDED and not last:
            self._join(self._tenure.epoch + 1, f"declared {self._state}, but alive")
        self._tenure.settle_all()
        self._upkeep()

    def _wake_up(self, load: Load) -> None:
        if load.consuming is not False:  # unknown condemns nobody
            self._join(self._tenure.epoch, "taken for a ZOMBIE, but alive")

    def _note_answer(self) -> None:
        now = self._clock.monotonic()
        if self.answers_since(now) is None:
            self._answers_since = now
        self._answered_at = now

    def _announce_leaving(self) -> None:
        if (self._state, Event.SHUTDOWN) not in TRANSITIONS:
            self._left.set()
            return
        target = next_state(self._state, Event.SHUTDOWN)
        self._store.transition(
            Transition(
                instance=self._tenure.instance,
                epoch=self._tenure.epoch,
                source=self._state,
                target=target,
                event=Event.SHUTDOWN,
                reason=self._leaving,
                evidence={"process": self._identity.process},
            )
        )
        self._state = target
        self._left.set()

    def observe(self) -> Load:
        """What this heartbeat says. Raises `BrokerError` if the broker does not answer."""
        host = read_host()
        seen = self.look(self._clock.monotonic())
        before = self._clock.monotonic()
        self._store.ping()
        trip_ms = (self._clock.monotonic() - before) * 1000
        known = self._latency_ms
        self._latency_ms = trip_ms if known is None else known + SMOOTHING * (trip_ms - known)
        own = self._store.keys.own_queue(self._tenure.instance)
        # While something is kept until there is room for it, nothing else starts here. What was
        # taken ahead waits for a slot that is taken anyway, and counts as one that is held.
        kept = self._tenure.kept
        full = kept is not None and kept.until is None
        extra = max(seen.extra, seen.slots or 0) if full else seen.extra
        return Load(
            slots=seen.slots,
            running=seen.running,
            early=seen.early,
            waiting=seen.waiting,
            queued=sum(self._queues.depths(own).values()),
            load_avg=host.load_avg,
            cores=host.cores,
            memory_used=host.memory_used,
            memory_total=host.memory_total,
            latency_ms=round(self._latency_ms, 3),
            consuming=seen.consuming,
            asked_s=seen.asked_s,
            mean_s=self._tally.mean_s,
            types=dict(seen.types),
            extra=extra or None,
            reserved=seen.reserved or None,
            keys=tuple(self._tenure.keys),
            kept=kept.token if kept is not None and full else "",
            unhealthy=self._tenure.unhealthy,
            progress=self._tenure.progress(),
        )

    def _period(self) -> float:
        soon = self._failing or self._state is State.JOINING
        return self._settings.join_period if soon else self._settings.heartbeat_period

    def _recover(self, error: Stale, last: bool) -> None:
        if last:
            return
        try:
            # Whether the record is gone, or ours since a join whose answer was lost, or that of
            # another process, the join finds out.
            self._join(self._tenure.epoch + 1, "its record was lost")
        except NameTaken as taken:
            if not self._replaced:
                log.error("another process has taken the name, so this one ends: %s", taken)
                self._on_replaced()
            self._replaced = True
        except NxsError as failure:
            log.warning("heartbeats pause: %s", failure)

    def _join(self, epoch: int, why: str) -> None:
        name = self._tenure.instance
        joined = self._store.join(
            name,
            self._identity.process,
            self._identity.profile,
            seen_epoch=self._store.epoch(name),
            keep_epoch=epoch,
            refused_s=self._settings.join_refused,
        )
        log.warning("%s has announced itself again: %s", name, why)
        self._state = State.JOINING
        if joined != self._tenure.epoch:
            self._tenure.epoch = joined
            self._on_new_epoch(joined)
