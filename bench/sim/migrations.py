"""The control plane's rebalancing: who gives how much is the policy's, what moves is told here."""

from __future__ import annotations

from bisect import bisect_left
from heapq import merge
from itertools import pairwise
from math import inf

from bench.sim.fleet import Fleet
from bench.sim.loop import EPOCH_S
from bench.sim.machine import Machine
from bench.sim.work import Job
from nxs_tasks.model.decision import Migrate
from nxs_tasks.policy.fleet.rebalance import rebalance
from nxs_tasks.store.migration import MERGED


class Migrations:
    """Levels the lines every `rebalance_period`, as `store/migration.py` does, and keeps account.

    A line is in the order in which its jobs arrived; those of one instant by their number.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        #: Jobs that were moved.
        self.moved = 0
        #: Jobs that came to a machine that they had been moved away from.
        self.returned = 0
        #: Neighbours in a line, after a migration, of which the later one arrived first.
        self.inversions = 0
        #: By machine, when it took part in one, s.
        self.times: dict[str, list[float]] = {}
        self._left: dict[int, set[str]] = {}

    def begin(self, first: float) -> None:
        """From a moment on, until all is done."""
        loop, fleet = self._fleet.loop, self._fleet
        period = fleet.settings.rebalance_period
        loop.at(first, loop.every, period, self.tick, lambda: bool(fleet.left))

    def tick(self) -> None:
        """One look, and what comes of it."""
        fleet = self._fleet
        now = EPOCH_S + fleet.loop.now
        for decision in rebalance(fleet.snapshot(), fleet.settings, now):
            if isinstance(decision, Migrate):
                self._migrate(decision)

    @property
    def least_gap_s(self) -> float:
        """Shortest time between two of one machine, s; endless if none had two."""
        gaps = [b - a for times in self.times.values() for a, b in pairwise(times)]
        # Sums of periods are not exact.
        return round(min(gaps, default=inf), 6)

    def _migrate(self, move: Migrate) -> None:
        fleet, now = self._fleet, self._fleet.loop.now
        source, target = fleet.machine(move.source), fleet.machine(move.target)
        chosen = self._chosen(source, target, move)
        if not chosen:
            return
        numbers = {job.number for job in chosen}
        rest = [job for job in source.line if job.number not in numbers]
        both = list(merge(target.line, chosen, key=_order))
        source.line.clear()
        source.line.extend(rest)
        target.line.clear()
        target.line.extend(both)
        for job in chosen:
            left = self._left.setdefault(job.number, set())
            self.returned += target.id in left
            left.add(source.id)
            job.moved_at = now
        self.moved += len(chosen)
        for machine in (source, target):
            machine.migrated_at = now
            self.times.setdefault(machine.id, []).append(now)
            self.inversions += sum(_order(a) > _order(b) for a, b in pairwise(machine.line))
        target.received_at = now
        fleet.wake(target)

    def _chosen(self, source: Machine, target: Machine, move: Migrate) -> list[Job]:
        resident = [_order(job) for job in target.line]
        chosen = []
        for n, job in enumerate(source.line):
            # What is newer than so many at the target has its place too far from the end.
            far = len(resident) > MERGED and bisect_left(resident, _order(job)) >= MERGED
            behind = not resident or _order(job) > resident[-1]
            if n >= move.after and self._may_move(job, move) and (behind or not far):
                chosen.append(job)
            if len(chosen) == move.tasks:
                break
        return chosen

    def _may_move(self, job: Job, move: Migrate) -> bool:
        now, hold = self._fleet.loop.now, self._fleet.settings.migrate_hold
        lately = job.moved_at is not None and now - job.moved_at < hold
        warm = not job.key or job.key in move.warm
        return not lately and (warm or now - job.arrives > move.cold_after)


def _order(job: Job) -> tuple[float, int]:
    return job.arrives, job.number
