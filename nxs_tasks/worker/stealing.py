"""Looks for work elsewhere while this worker has none: a thread that decides, and never waits.

Where to look is told to the transport, which takes what waits there with the same script as
everything else (`claim.lua`).
"""

from __future__ import annotations

import logging
import threading

from nxs_tasks.clock import Clock
from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Nothing, Steal
from nxs_tasks.policy.fleet.stealing import LONGEST, steal
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.transport.tenure import Tenure

log = logging.getLogger(__name__)


class Stealing(threading.Thread):
    """Decides every `steal_period` until stopped."""

    def __init__(self, store: FleetStore, tenure: Tenure, settings: Settings, clock: Clock) -> None:
        super().__init__(name="nxs-stealing", daemon=True)
        self._store = store
        self._tenure = tenure
        self._settings = settings
        self._clock = clock
        self._over = threading.Event()
        self._failing = False

    def run(self) -> None:
        """Look until stopped."""
        while not self._over.wait(self._settings.steal_period):
            self.look_safely()

    def stop(self) -> None:
        """End the thread; nothing is taken from others any more."""
        self._over.set()
        self._tenure.theft = None
        if self.is_alive():
            self.join(timeout=2 * self._settings.broker_timeout)
        self._tenure.theft = None

    def look_safely(self) -> None:
        """One look; without an answer of the broker nothing is taken from others."""
        try:
            self.look()
            self._failing = False
        except NxsError as error:
            self._tenure.theft = None
            if not self._failing:
                log.warning("no look at the lines of others: %s", error)
            self._failing = True
        except Exception:
            # A worker that steals nothing any more would be noticed by nobody.
            self._tenure.theft = None
            log.exception("a look at the lines of others failed and is tried again")

    def look(self) -> Steal | Nothing | None:
        """What is decided; None while there is work of its own. Raises `BrokerError`."""
        tenure = self._tenure
        idle_since = tenure.idle_since
        period = self._settings.steal_period
        if idle_since is None or self._clock.monotonic() - idle_since < period:
            tenure.theft = None
            return None
        lines = self._store.snapshot(longest=LONGEST, also=tenure.instance)
        thief = lines.get(tenure.instance)
        if thief is None or thief.epoch != tenure.epoch:
            tenure.theft = None
            return None
        decision = steal(thief, lines, self._settings)
        theft = decision if isinstance(decision, Steal) else None
        if theft is not None and (
            tenure.theft is None or tenure.theft.victims[0] != theft.victims[0]
        ):
            log.info("%s %s", theft.instance, theft.reason)
        tenure.theft = theft
        if tenure.idle_since != idle_since:
            # There was work of its own meanwhile.
            tenure.theft = None
        return decision
