"""Has this worker take no work while its tasks fail that go well elsewhere.

It judges itself, because it sees each failure when it happens: one that fails a task in some
milliseconds would have had hundreds before anybody else could know. So it stops asking at the last
of `eject_failures` in a row, and asks again as soon as it is found to be no fault of its own.
"""

from __future__ import annotations

import logging
import threading

from nxs_tasks.errors import NxsError, Stale
from nxs_tasks.model.decision import Eject, Nothing, Transition
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.ejection import judge
from nxs_tasks.policy.fleet.lifecycle import next_state
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.runs import RecentRuns
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.tally import Tally

log = logging.getLogger(__name__)


class Ejecting(threading.Thread):
    """Reports how tasks end, and judges: at each heartbeat's period, and when several failed."""

    def __init__(self, store: FleetStore, tenure: Tenure, tally: Tally, settings: Settings) -> None:
        super().__init__(name="nxs-ejecting", daemon=True)
        self._store = store
        self._runs = RecentRuns(store)
        self._tenure = tenure
        self._tally = tally
        self._settings = settings
        self._over = threading.Event()
        self._wanted = threading.Event()
        self._names: set[str] = set()
        tally.on_failure = self.failed

    def failed(self) -> None:
        """A task has failed. Returns at once."""
        if len(self._tally.failing) >= self._settings.eject_failures:
            self._tenure.suspended = True
            self._wanted.set()

    def run(self) -> None:
        """Judge until stopped."""
        while not self._over.is_set():
            self._wanted.wait(self._settings.heartbeat_period)
            self._wanted.clear()
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
        try:
            self.look()
        except NxsError as error:
            log.debug("how tasks ended is not compared with others: %s", error)
        except Exception:
            # A worker that is suspended for ever would be noticed by nobody.
            log.exception("how tasks ended could not be judged")
        finally:
            self._tenure.suspended = False

    def look(self) -> Eject | Nothing | None:
        """Report and judge; None if nothing failed. Raises `BrokerError`."""
        tenure, tally = self._tenure, self._tally
        failing = list(tally.failing)
        taken = tally.take()
        self._names |= taken.keys()
        self._runs.report(
            tenure.instance, [(name, ran.succeeded, ran.failed) for name, ran in taken.items()]
        )
        if not failing and not any(ran.failed > 0 for ran in taken.values()):
            return None
        recent = self._runs.recent(tenure.instance, sorted(self._names | set(failing)))
        self._names = {name for name, runs in recent.here.items() if runs.all}
        mine = self._store.snapshot(longest=0, also=tenure.instance).get(tenure.instance)
        if mine is None or mine.epoch != tenure.epoch or mine.ejected_until > recent.now:
            return None
        decision = judge(mine, failing, recent.here, recent.elsewhere, self._settings, recent.now)
        if isinstance(decision, Eject):
            self._eject(decision)
        if len(failing) >= self._settings.eject_failures:
            tally.failing.clear()
            log.info("%s: %s", tenure.instance, decision.reason)
        return decision

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
                    evidence={"ejected_s": decision.seconds, "times": decision.times},
                )
            )
        except Stale as error:
            log.info("its state has changed meanwhile: %s", error)
