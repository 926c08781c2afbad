"""Finds that this worker's consumer takes no work, and has something done about it.

It looks at what each heartbeat looks at, so what it acts on is what the heartbeat tells. And it
acts only right after a heartbeat that the broker has confirmed: while the broker is away, a
consumer that gets nothing is no wonder. Each thing that is done is recorded among the transitions
of the instance.

A look that comes late says nothing of the time before: a process that was suspended has not
neglected anything. And one good look is not enough to believe in a remedy: a new connection asks
once, also where nobody will read the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nxs_tasks.clock import Clock, wait_until
from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Evidence, Heal, Release
from nxs_tasks.model.healing import Deaf, Remedy
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import PLACEABLE, State
from nxs_tasks.policy.fleet.healing import excused, heal, kept_from_work
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.intents import Intents
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker import remedies
from nxs_tasks.worker.consumption import LONGEST_PAUSE_S, Consumption

log = logging.getLogger(__name__)

#: What its records are called among the transitions.
HEALING = "healing"
#: For so long a first finding is doubted, s.
SECOND_LOOK_S = 0.2


class Healing:
    """Looks after the consumer of one worker. Everything is called by the heartbeat's thread."""

    def __init__(
        self,
        worker: Any,
        store: FleetStore,
        tenure: Tenure,
        settings: Settings,
        clock: Clock,
        look: Callable[[float], Consumption],
        needed: Sequence[str],
    ) -> None:
        """`look` reads the worker; `needed` are the queues it must consume, its own the first."""
        self._worker = worker
        self._store = store
        self._tenure = tenure
        self._settings = settings
        self._clock = clock
        self._read = look
        self._needed = needed
        self._seen: Consumption | None = None
        self._read_at = float("-inf")
        self._kept = ""  # who keeps it from work, and why
        self._served = False
        self._told_to_end = False
        self._looked_at = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._since: float | None = None
        self._well_since: float | None = None
        self._last: Remedy | None = None
        self._told = ""

    def look(self, now: float) -> Consumption:
        """What the consumer does now, as the fleet is told; `now` is monotonic, s.

        Nothing is said against one that somebody keeps from work, nor by a look that comes late.
        """
        seen = self._seen = self._read_twice(now)
        late = now - self._read_at > self._settings.longest_gap
        self._read_at = now
        if self._served and seen.consuming is False and (late or self._kept):
            return replace(seen, consuming=None)
        return seen

    def _read_twice(self, now: float) -> Consumption:
        """Once more if it is new that it takes no work.

        Between the end of a task that was long and the next question there is an instant.
        """
        seen = [self._read(now)]

        def is_doubtful() -> bool:
            return seen[-1].consuming is False and self._since is None

        def is_cleared() -> bool:
            seen.append(self._read(self._clock.monotonic()))
            return not is_doubtful()

        if is_doubtful():
            wait_until(is_cleared, SECOND_LOOK_S)
        return seen[-1]

    def tend(self, state: State) -> None:
        """Act on the last look. The broker has just confirmed it, and said that we are `state`."""
        seen, now = self._seen, self._clock.monotonic()
        late = now - self._looked_at > self._settings.longest_gap
        self._looked_at = now
        self._served = self._served or state in PLACEABLE
        if late and not self._told_to_end:
            self._forget()
        if seen is None or not remedies.runs(self._worker):
            return
        if seen.consuming is None and self._since is None:
            return  # unknown does not begin it, and does not end it
        self._since = now if self._since is None and not seen.consuming else self._since
        if seen.consuming:
            self._be_well(now)
        else:
            self._well_since = None
            self._be_deaf(seen, now)

    def _be_well(self, now: float) -> None:
        self._kept = ""
        if self._since is None:
            return
        self._well_since = now if self._well_since is None else self._well_since
        if now - self._well_since <= LONGEST_PAUSE_S:
            return
        if self._last is not None:
            took = round(self._well_since - self._since, 1)
            self._record(f"its consumer takes work again, after {took:.0f} s", {"deaf_s": took})
        self._forget()

    def _be_deaf(self, seen: Consumption, now: float) -> None:
        tenure = self._tenure
        mine = self._store.snapshot(longest=0, also=tenure.instance).get(tenure.instance)
        if mine is None or mine.epoch != tenure.epoch:
            return
        deaf, at = self._deaf(seen, now), self._store.now()
        self._kept = kept_from_work(mine, deaf, at)
        excuse = excused(mine, deaf, at)
        if excuse:
            log.debug("its consumer takes no work, and need not: %s", excuse)
            self._forget()
            return
        decision = heal(mine, deaf, self._settings, at)
        if isinstance(decision, Heal):
            self._last = decision.remedy
            log.error("%s: %s", tenure.instance, decision.reason)
            self._record(decision.reason, decision.evidence)
            self._do(decision.remedy, seen, mine, decision.reason)

    def _do(self, remedy: Remedy, seen: Consumption, mine: Instance, why: str) -> None:
        worker = self._worker
        if remedy is Remedy.CONSUME:
            remedies.consume_again(worker, self._wanted(seen))
        elif remedy is Remedy.RECONNECT:
            remedies.connect_anew(worker, self._tenure, why)
        elif remedy is Remedy.RESTART_POOL:
            remedies.restart_pool(worker)
        elif remedy is Remedy.END:
            self._told_to_end = True
            self._give_back(mine, why)
            remedies.end()
        else:
            remedies.kill()

    def _wanted(self, seen: Consumption) -> list[str]:
        paused = self._paused()
        return [queue for queue in self._needed if queue not in paused & seen.missing]

    def _paused(self) -> frozenset[str]:
        found = {p.name for p in Intents(self._store).pauses() if p.kind == "queue"}
        # What waits in its own queue would else have waited in the shared one.
        own = {self._needed[0]} if self._store.shared_queue in found else set()
        return frozenset(found | own)

    def _give_back(self, mine: Instance, why: str) -> None:
        release = Release(
            instance=mine.id,
            epoch=mine.epoch,
            source=mine.state,
            target=self._store.shared_queue,
            reason=why,
        )
        try:
            self._store.release(release)
        except NxsError as error:
            log.warning("waiting tasks are left for the control worker to move: %s", error)

    def _record(self, what: str, evidence: Evidence) -> None:
        try:
            self._store.remark(self._tenure.instance, self._tenure.epoch, HEALING, what, evidence)
        except NxsError as error:
            log.warning("what is done about the consumer is not recorded: %s", error)

    def _deaf(self, seen: Consumption, now: float) -> Deaf:
        return Deaf(
            for_s=now - (now if self._since is None else self._since),
            asked_s=seen.asked_s,
            missing=seen.missing,
            paused=self._paused() & seen.missing if seen.missing else frozenset(),
            full=seen.full,
            suspended=self._tenure.suspended,
            served=self._served,
            pool_restarts=remedies.pool_restarts(self._worker),
            told_to_end=self._told_to_end,
            last=self._last,
        )
