"""Has this worker take no work while its tasks fail that go well elsewhere.

It judges itself, because it sees each failure when it happens: one that fails a task in some
milliseconds would have had hundreds before anybody else could know. So it stops asking at the last
of `eject_failures` in a row, and waits until all others have told how their tasks end now. What is
found to be no fault of its own makes it wait again after `TRUSTED_S` at the soonest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from nxs_tasks.clock import SYSTEM
from nxs_tasks.errors import NxsError, Stale
from nxs_tasks.model.decision import Eject, Nothing, Transition
from nxs_tasks.model.runs import Runs
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.ejection import Failing, judge
from nxs_tasks.policy.fleet.transitions import next_state
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.runs import RecentRuns
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.health import Health
from nxs_tasks.worker.tally import Ran, Tally

log = logging.getLogger(__name__)

#: What ended in so long is compared, s.
WINDOW_S = 60.0
#: And nothing that ended longer ago, s.
FARTHEST_S = 90.0
#: So much longer than the period of heartbeats others have to tell how their tasks end, s.
SETTLING_S = 1.0
#: For so long a name that fails elsewhere too suspends nothing, s.
TRUSTED_S = 300.0


class Ejecting(threading.Thread):
    """Reports how tasks end, and judges: at each heartbeat's period, and when several failed."""

    def __init__(self, store: FleetStore, tenure: Tenure, tally: Tally, settings: Settings) -> None:
        super().__init__(name="nxs-ejecting", daemon=True)
        self._store = store
        self._runs = RecentRuns(store)
        self._tenure = tenure
        self._tally = tally
        self._settings = settings
        self._health = Health(settings, SYSTEM.monotonic())
        self._over = threading.Event()
        self._wanted = threading.Event()
        #: Names that are no fault of this instance, and since when, monotonic, s.
        self._trusted: dict[str, float] = {}
        tally.on_failure = self.failed

    def failed(self, task: str) -> None:
        """A task of that name has failed. Returns at once."""
        row, tail = self._tally.rows.get(task), len(self._tally.tail)
        longest = max(tail, 0 if row is None else row.count)
        trusted = SYSTEM.monotonic() - self._trusted.get(task, float("-inf")) < TRUSTED_S
        if longest >= self._settings.eject_failures and not trusted:
            # In this order: a look that ends meanwhile sees that another one is wanted.
            self._wanted.set()
            self._tenure.suspended = True

    def run(self) -> None:
        """Judge until stopped."""
        while not self._over.is_set():
            if self._wanted.wait(self._settings.heartbeat_period):
                # All others report meanwhile.
                self._report_safely()
                self._over.wait(self._settings.heartbeat_period + SETTLING_S)
            if not self._over.is_set():
                self.look_safely()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._wanted.set()
        if self.is_alive():
            self.join(timeout=2 * self._settings.broker_timeout)
        self._tenure.suspended = False

    def look_safely(self) -> None:
        """One look. Without an answer of the broker nobody is ejected."""
        self._wanted.clear()
        try:
            self.look()
        except NxsError as error:
            self._health.interrupt()
            log.debug("how tasks end is not compared with others: %s", error)
        except Exception:
            # A worker that is suspended for ever would be noticed by nobody.
            log.exception("how tasks ended could not be judged")
        finally:
            self._tenure.suspended = self._wanted.is_set() and not self._over.is_set()

    def _report_safely(self) -> None:
        try:
            self._report()
        except NxsError as error:
            log.debug("how tasks end is told later: %s", error)

    def _report(self) -> Mapping[str, Ran]:
        taken, now = self._tally.take(), SYSTEM.monotonic()
        try:
            self._runs.report(self._tenure.instance, self._health.told(taken))
        except NxsError:
            self._tally.put_back(taken)
            self._health.interrupt()
            raise
        self._health.add(taken, now)
        return taken

    def look(self) -> Eject | Nothing | None:
        """Report and judge; None if nothing failed. Raises `BrokerError`."""
        tenure, now = self._tenure, SYSTEM.monotonic()
        failed = {name for name, ran in self._report().items() if ran.failed > 0}
        tenure.unhealthy = self._health.look(tenure.state, self._elsewhere, now)
        rows = {name: (row.count, now - row.since) for name, row in self._tally.rows.copy().items()}
        tail = tuple(self._tally.tail)
        if not failed and not rows:
            return None
        back_s = {name: min(s, FARTHEST_S) for name, (_, s) in rows.items()}
        since = self._runs.recent(tenure.instance, back_s)
        lately = self._runs.recent(tenure.instance, dict.fromkeys(sorted(failed), WINDOW_S))
        mine = self._store.snapshot(longest=0, also=tenure.instance).get(tenure.instance)
        if mine is None or mine.epoch != tenure.epoch:
            return None
        if mine.ejected_until > lately.now:
            # What was running yet says nothing about the time after.
            self._tally.forget_rows()
            return None
        counts = {name: count for name, (count, _) in rows.items()}
        failing = Failing(counts, tail, since.elsewhere)
        here, elsewhere = lately.here, lately.elsewhere
        decision = judge(mine, failing, here, elsewhere, self._settings, lately.now)
        if isinstance(decision, Eject):
            self._eject(decision)
            self._tally.forget_rows()
        else:
            self._trust(failing, decision.reason)
        return decision

    def _elsewhere(self, names: Sequence[str], back_s: float) -> Mapping[str, Runs]:
        return self._runs.recent(self._tenure.instance, dict.fromkeys(names, back_s)).elsewhere

    def _trust(self, failing: Failing, reason: str) -> None:
        least = self._settings.eject_failures
        names = {name for name, count in failing.rows.items() if count >= least}
        names |= set(failing.tail) if len(failing.tail) >= least else set()
        if names - self._trusted.keys():
            log.info("%s: %s", self._tenure.instance, reason)
        self._trusted.update(dict.fromkeys(names, SYSTEM.monotonic()))

    def _eject(self, decision: Eject) -> None:
        try:
            self._runs.eject(decision)
        except Stale as error:
            log.warning("not ejected, though %s: %s", decision.reason, error)
            return
        log.error(
            "%s takes no work for %.0f s: %s", decision.instance, decision.seconds, decision.reason
        )
        if decision.source is State.ACTIVE:
            self._degrade(decision)

    def _degrade(self, decision: Eject) -> None:
        try:
            self._store.transition(
                Transition(
                    instance=decision.instance,
                    epoch=decision.epoch,
                    source=decision.source,
                    target=next_state(decision.source, Event.UNHEALTHY),
                    event=Event.UNHEALTHY,
                    reason=decision.reason,
                    evidence={
                        **decision.evidence,
                        "ejected_s": decision.seconds,
                        "times": decision.times,
                    },
                )
            )
        except Stale as error:
            log.info("its state has changed meanwhile: %s", error)
