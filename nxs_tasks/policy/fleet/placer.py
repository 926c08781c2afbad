"""The rule of `placement.explain` over one snapshot, as an index that counts its own placements."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from nxs_tasks.model.decision import Placement
from nxs_tasks.model.demand import PLAIN, Demand, Traits
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.affinity import Warmth
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import (
    DIRECT_ALONE,
    DIRECT_BEST,
    DIRECT_ONLY,
    SHARED_COSTLY,
    has_free_slot,
    has_room,
    shared_reason,
    to_shared,
    to_warm,
    within,
)
from nxs_tasks.policy.fleet.ranking import CHOICES, Ranking
from nxs_tasks.policy.fleet.readiness import holders, knows, line_per_slot, unready
from nxs_tasks.policy.fleet.score import score
from nxs_tasks.settings import Settings

Heap = list[tuple[float, str]]


class Placer:
    """Places task after task over one snapshot.

    Not thread-safe: the caller holds a lock. `place` costs O(log n) for n instances; the first
    placement of a task name costs O(n).

    Why lazy heaps are right: within a snapshot placements are only added, so a rank only falls
    and a line only grows. A stale entry therefore looks better than the truth, comes to the top,
    and is corrected there before it can be chosen.
    """

    def __init__(
        self, snapshot: Snapshot, settings: Settings, placed: Placed | None = None
    ) -> None:
        self.snapshot = snapshot
        self.placed = placed or Placed()
        self._settings = settings
        self._known = {i.id: i for i in snapshot.instances}
        self._ready = [i for i in snapshot.instances if not unready(i, snapshot, settings)]
        self.ranking = Ranking(snapshot, self._ready, settings)
        self._rank: dict[str, float | None] = dict.fromkeys(self._known)
        self._lines: dict[str, float] = {}
        self._indexes: dict[tuple[bool, ...], _TaskIndex] = {}
        self._tasks: dict[str, _TaskIndex] = {}
        self._shared: dict[tuple[Demand, bool], Placement] = {}
        self._warmth: Warmth | None = None
        self._by_key: dict[str, Heap] = {}
        self._traits: dict[str, Traits] = {}
        # Few: the instances of a fleet mostly run the same code.
        self._profiles = list({id(i.profile): i.profile for i in snapshot.instances}.values())
        before = self.placed.slots
        for instance in snapshot.instances:
            self._lines[instance.id] = line_per_slot(instance, before.get(instance.id, 0))
        for instance in self._ready:
            self._rank[instance.id] = self._judge(instance)

    def traits(self, task: str) -> Traits:
        """What the workers tell of a task."""
        found = self._traits.get(task)
        if found is None:
            told = (p.traits.get(task) for p in self._profiles if p is not None)
            found = self._traits[task] = next((t for t in told if t is not None), PLAIN)
        return found

    def place(self, task: str | Demand) -> Placement:
        """Choose for one task and count it as placed."""
        demand = Demand(task) if isinstance(task, str) else task
        placement = self._chosen(demand)
        if placement.instance is not None:
            self._count(demand, placement.instance)
        return placement

    def _chosen(self, demand: Demand) -> Placement:
        settings, placed = self._settings, self.placed
        if demand.key:
            placement = to_warm(demand, self._warm_for(demand), settings, placed)
            if placement is not None:
                return placement
        index = self._index_of(demand.task)
        first = _top(index.by_rank, self._rank)
        if first is not None:
            chosen, reason = self._first_for(demand, index, first)
            if chosen is not None:
                value = score(chosen, settings, placed.slots.get(chosen.id, 0))
                return within(demand, chosen, value, reason, settings.saturation)
        nearest = _top(index.by_line, self._lines)
        if nearest is None:
            return self._shared_placement(demand, index, costly=first is not None)
        instance = self._known[nearest]
        value = score(instance, settings, placed.slots.get(nearest, 0))
        return Placement(
            task=demand.task, instance=nearest, score=value, reason=DIRECT_ONLY, key=demand.key
        )

    def _warm_for(self, demand: Demand) -> list[Instance]:
        """The warm instance with the shortest line, if it takes the task; else all that are warm.

        So a key that many have costs no more than one that few have.
        """
        if self._warmth is None:
            self._warmth = Warmth(self._ready, self.placed, self._settings)
        key, warmth = demand.key, self._warmth
        heap = self._by_key.get(key)
        if heap is None:
            heap = self._by_key[key] = [(self._lines[i.id], i.id) for i in warmth.of(key)]
            heapq.heapify(heap)
        while heap and not warmth.has(heap[0][1], key):
            heapq.heappop(heap)
        first = _top(heap, self._lines)
        if first is None:
            return []
        nearest = [self._known[first]]
        taken = to_warm(demand, nearest, self._settings, self.placed) is not None
        return nearest if taken else warmth.of(key)

    def _first_for(
        self, demand: Demand, index: _TaskIndex, first: str
    ) -> tuple[Instance | None, str]:
        """The first by merit, and why; None if none has room for what the task declares."""
        top = self._known[first]
        plain = demand.slots == 1 and not demand.memory
        if plain and self.ranking.is_plain(top, demand, self.placed):
            # Nobody ranks higher for this task than for any.
            return top, DIRECT_BEST
        best: Instance | None = None
        best_merit = 0.0
        looked: Heap = []
        heap = index.by_rank
        while len(looked) < CHOICES and (found := _top(heap, self._rank)) is not None:
            base = -heap[0][0]
            if best is not None and base <= best_merit:
                break  # for this task nobody ranks higher than for any
            looked.append(heapq.heappop(heap))
            instance = self._known[found]
            if plain or has_room(instance, demand, self._settings, self.placed):
                merit = self.ranking.merit(instance, base, demand, self.placed)
                if best is None or merit > best_merit:
                    best, best_merit = instance, merit
        for entry in looked:
            heapq.heappush(heap, entry)
        return best, DIRECT_BEST if best is top else DIRECT_ALONE

    def _shared_placement(self, demand: Demand, index: _TaskIndex, *, costly: bool) -> Placement:
        known = self._shared.get((demand, costly))
        if known is None:
            reason = SHARED_COSTLY if costly else index.shared_reason
            known = to_shared(demand, reason)
            self._shared[demand, costly] = known
        return known

    def place_many(self, task: str | Demand, count: int) -> list[Placement]:
        """Choose for several tasks of one kind, one after the other, and count them as placed."""
        placements: list[Placement] = []
        while len(placements) < count:
            placement = self.place(task)
            if placement.instance is None:
                # Within a snapshot slots are only taken: nobody becomes eligible any more.
                return placements + [placement] * (count - len(placements))
            placements.append(placement)
        return placements

    def contenders(self, task: str | Demand, count: int) -> tuple[Instance, ...]:
        """Up to `count` instances that matter most for a task: whom it would choose comes first."""
        demand = Demand(task) if isinstance(task, str) else task
        index = self._index_of(demand.task)
        chosen = self._chosen(demand).instance
        able = ((rank, i) for _, i in index.by_rank if (rank := self._rank[i]) is not None)
        best = [instance_id for _, instance_id in heapq.nsmallest(max(count, CHOICES), able)]
        ids = dict.fromkeys(itertools.chain([chosen] if chosen else [], best, self._known))
        return tuple(self._known[i] for i in itertools.islice(ids, count))

    def _index_of(self, task: str) -> _TaskIndex:
        index = self._tasks.get(task)
        if index is None:
            # Names that the same profiles know share one index: with one for each name, every
            # placement would make the tops of all others stale.
            known_by = tuple(p is not None and task in p.tasks for p in self._profiles)
            index = self._indexes.get(known_by)
            if index is None:
                index = self._indexes[known_by] = self._index(task)
            self._tasks[task] = index
        return index

    def _index(self, task: str) -> _TaskIndex:
        by_rank = [
            (rank, i.id)
            for i in self._ready
            if knows(i, task) and (rank := self._rank[i.id]) is not None
        ]
        able = holders(task, self._ready, self.snapshot)
        by_line = [(self._lines[i.id], i.id) for i in able]
        heapq.heapify(by_rank)
        heapq.heapify(by_line)
        return _TaskIndex(by_rank, by_line, shared_reason(task, self._ready))

    def _count(self, demand: Demand, instance_id: str) -> None:
        self.placed.add(demand, instance_id)
        instance = self._known[instance_id]
        if self._rank[instance_id] is not None:
            self._rank[instance_id] = self._judge(instance)
        self._lines[instance_id] = line_per_slot(instance, self.placed.slots[instance_id])
        if demand.key and self._warmth is not None:
            known = self._warmth.has(instance_id, demand.key)
            self._warmth.placed(instance_id)
            heap = self._by_key.get(demand.key)
            if heap is not None and not known:
                heapq.heappush(heap, (self._lines[instance_id], instance_id))

    def _judge(self, instance: Instance) -> float | None:
        """The negative rank if the instance is eligible for what it knows, else None."""
        placed = self.placed.slots.get(instance.id, 0)
        value = score(instance, self._settings, placed)
        if value is None or value <= self._settings.threshold:
            return None
        if not has_free_slot(instance, self._settings, placed):
            return None
        return -self.ranking.base(instance, value)


@dataclass(slots=True)
class _TaskIndex:
    """The instances for some tasks: by falling rank; by growing line where those are needed."""

    by_rank: Heap
    by_line: Heap
    shared_reason: str


def _top(heap: Heap, current: Mapping[str, float | None]) -> str | None:
    while heap:
        key, instance_id = heap[0]
        now = current[instance_id]
        if now is None:
            heapq.heappop(heap)
        elif now != key:
            heapq.heapreplace(heap, (now, instance_id))
        else:
            return instance_id
    return None
