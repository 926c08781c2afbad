"""The fleet as one process sees it between two looks, with its own placements counted."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from nxs_tasks.breaker import Breaker
from nxs_tasks.clock import Clock
from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Placement
from nxs_tasks.model.demand import Demand
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placer import Placer
from nxs_tasks.settings import Settings

log = logging.getLogger(__name__)

#: Own placements younger than this may not be in a snapshot yet: decided, but not yet written.
IN_FLIGHT_S = 0.1


class View:
    """The fleet at most `view_max_age` old, plus own placements. The caller holds a lock."""

    def __init__(
        self, look: Callable[[], Snapshot], settings: Settings, clock: Clock, breaker: Breaker
    ) -> None:
        """`look` takes a snapshot, and raises `NxsError` if it cannot."""
        self._take_snapshot = look
        self._settings = settings
        self._clock = clock
        self._breaker = breaker
        self._placer: Placer | None = None
        self._looked_at = float("-inf")
        self._recent: deque[tuple[float, Demand, str]] = deque()
        self._recent_keys: deque[tuple[float, str, str]] = deque()
        self._failed = False

    def placer(self) -> Placer | None:
        """The current placer, or None while the broker does not answer."""
        if self._breaker.open:
            # Whoever is told where to put a task will not put it there.
            self._placer, self._looked_at = None, float("-inf")
            return None
        now = self._clock.monotonic()
        if now - self._looked_at >= self._settings.view_max_age:
            self._look(now)
        return self._placer

    def count(self, demand: Demand, placements: Iterable[Placement]) -> None:
        """Remember own placements, for the next snapshot that may not know them yet."""
        now = self._clock.monotonic()
        ids = [p.instance for p in placements if p.instance is not None]
        self._recent.extend((now, demand, instance_id) for instance_id in ids)
        if demand.key:
            self._recent_keys.extend((now, demand.key, instance_id) for instance_id in ids)

    def _look(self, now: float) -> None:
        self._looked_at = now
        try:
            snapshot = self._take_snapshot()
        except NxsError as error:
            self._placer = None
            if not self._failed:
                log.warning("no view of the fleet, tasks go to the shared queue: %s", error)
            self._failed = True
            # From the end of the try: it may have taken longer than a view may be old, and asking
            # a dead broker at every publish would add a time-out to each.
            self._looked_at = self._clock.monotonic()
            return
        self._failed = False
        while self._recent and self._recent[0][0] < now - IN_FLIGHT_S:
            self._recent.popleft()
        # Which keys were used where is told by heartbeats only.
        while self._recent_keys and self._recent_keys[0][0] < now - self._settings.longest_gap:
            self._recent_keys.popleft()
        carried = Placed()
        for _, key, instance_id in self._recent_keys:
            carried.add_key(key, instance_id)
        for _, demand, instance_id in self._recent:
            carried.add(demand, instance_id)
        self._placer = Placer(snapshot, self._settings, carried)
