"""Where a task goes: the instance with the highest score among those with a free slot.

Late binding (design, section 4): an instance is *eligible* for a task if

1. it is ACTIVE or DEGRADED, is not silent, and consumes the shared queue,
2. the task is registered there,
3. it has a free slot for one more: held + waiting in its own queue + placed since + 1
   ≤ saturation × slots,
4. its score is above the threshold.

The highest score wins; ties go to the lower id. If none is eligible the task goes to the shared
queue, which the first free slot pulls from, so nothing waits while a slot is free. One case is
different: if some live consumer of the shared queue does not know the task, the queue might hand
it to that one, which discards it (stock Celery) or has to send it on. Then the instance that knows
it and has the shortest line per slot gets it, without asking for a free slot or for the threshold;
one that is ready for work before one that is only alive.

`explain` is the rule, readable and O(instances). `Placer` is the same rule as an index that is
built once per snapshot and answers in O(log instances); a property test holds them together.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from nxs_tasks.model.decision import Candidate, Explanation, Placement
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, PLACEABLE, State
from nxs_tasks.policy.fleet.score import score, terms, weigh
from nxs_tasks.settings import Settings

SHARED_UNKNOWN = "no instance registers this task: the shared queue, as in plain Celery"
SHARED_BUSY = "no instance has both a free slot and a score above the threshold: first to be free"
SHARED_EMPTY = "no instance is ready for work: the shared queue"
DIRECT_BEST = "highest score of those with a free slot"
DIRECT_ONLY = "not every instance knows this task: the shortest line among those that do"


def unready(instance: Instance, snapshot: Snapshot, settings: Settings) -> str:
    """Why an instance takes no direct work at all, whatever the task; "" if it does."""
    if instance.state not in PLACEABLE:
        return f"is {instance.state}"
    if instance.stopped:
        return "its process has stopped"
    if instance.beat_at is None:
        return "no heartbeat yet"
    age = snapshot.taken_at - instance.beat_at
    if age > settings.silent_after:
        return f"silent for {age:.0f} s"
    if instance.load.consuming is False:
        return "its consumer takes no work"
    if instance.profile is None:
        return "its registered tasks are unknown"
    if snapshot.shared_queue not in instance.profile.queues:
        return f"does not consume {snapshot.shared_queue}"
    if instance.load.slots is None or instance.held is None:
        return "its free slots are unknown"
    return ""


def _knows(instance: Instance, task: str) -> bool:
    return instance.profile is not None and task in instance.profile.tasks


def _lives(instance: Instance) -> bool:
    return not (instance.state in ENDED or instance.state is State.LEAVING or instance.stopped)


def _takes_shared(instance: Instance, snapshot: Snapshot) -> bool:
    # Of an unknown profile the worst is assumed: a task that is discarded is lost.
    profile = instance.profile
    return _lives(instance) and (profile is None or snapshot.shared_queue in profile.queues)


def _holders(task: str, ready: Iterable[Instance], snapshot: Snapshot) -> list[Instance]:
    """Who could be given a task that must not go to the shared queue; empty if it may."""
    takers = (i for i in snapshot.instances if _takes_shared(i, snapshot))
    if all(_knows(i, task) for i in takers):
        return []
    knowing = [i for i in ready if _knows(i, task)]
    alive = [i for i in snapshot.instances if _lives(i) and _knows(i, task)]
    return knowing or [i for i in alive if i.state is not State.ZOMBIE] or alive


def home(task: str, snapshot: Snapshot, own: Callable[[str], str], shared: str) -> str | None:
    """To which queue a task goes that an instance gives back; None if it must stay where it is.

    The shared queue, if all who take from it know the task; else the own queue (`own` of an
    instance id) of the one that knows it and has the shortest line; else it stays: whoever comes
    back under that name, or knows it later, will run it, and nobody discards it.
    """
    holders = _holders(task, (), snapshot)
    if holders:
        return own(min(holders, key=lambda i: (_line_per_slot(i, 0), i.id)).id)
    takers = (i for i in snapshot.instances if _takes_shared(i, snapshot))
    return shared if all(_knows(i, task) for i in takers) else None


def knower(task: str, snapshot: Snapshot, queue: str, *, but: str) -> str | None:
    """Who gets a task that `but` has taken from `queue` and does not know; None if nobody does.

    Of those that know it rather one that takes from the same queue; of these the shortest line.
    """
    others = (i for i in snapshot.instances if i.id != but and i.state is not State.ZOMBIE)
    knowing = [i for i in others if _lives(i) and _knows(i, task)]
    takes = [i for i in knowing if i.profile is not None and queue in i.profile.queues]
    found = min(takes or knowing, key=lambda i: (_line_per_slot(i, 0), i.id), default=None)
    return found.id if found is not None else None


def _shared_reason(task: str, ready: Iterable[Instance]) -> str:
    knowing = [_knows(i, task) for i in ready]
    return SHARED_EMPTY if not knowing else SHARED_BUSY if any(knowing) else SHARED_UNKNOWN


def _line(instance: Instance, placed: int) -> int:
    return (instance.held or 0) + (instance.queued or 0) + placed


def has_free_slot(instance: Instance, settings: Settings, placed: int = 0) -> bool:
    """Whether one more task would find a slot: held + queued + placed + 1 ≤ saturation × slots."""
    return _line(instance, placed) + 1 <= settings.saturation * (instance.load.slots or 0)


def to_free_slot(task: str, instance: Instance, value: float, settings: Settings) -> Placement:
    """A placement that holds only while the instance still has a free slot."""
    most = int(settings.saturation * (instance.load.slots or 0)) - (instance.load.early or 0)
    return Placement(
        task=task,
        instance=instance.id,
        score=value,
        reason=DIRECT_BEST,
        epoch=instance.epoch,
        limit=most,
    )


def explain(
    task: str, snapshot: Snapshot, settings: Settings, placed: Mapping[str, int] | None = None
) -> Explanation:
    """Place a task and say why: the terms of each instance, and why it was not the others.

    `placed` counts, by instance id, the caller's own placements since the snapshot.
    """
    placed = placed or {}
    candidates: list[Candidate] = []
    ready: list[Instance] = []
    best: tuple[float, str] | None = None
    for instance in snapshot.instances:
        n = placed.get(instance.id, 0)
        parts = terms(instance, settings, n)
        value = weigh(parts, settings.weights)
        why_not = unready(instance, snapshot, settings)
        if not why_not:
            ready.append(instance)
            why_not = _unfit(task, instance, value, n, settings)
        if not why_not and value is not None and (best is None or (-value, instance.id) < best):
            best = (-value, instance.id)
        candidates.append(
            Candidate(instance=instance.id, score=value, terms=parts, why_not=why_not)
        )
    placement = _choose(task, snapshot, ready, best, settings, placed)
    return Explanation(
        placement=placement,
        candidates=tuple(_with_loser_reason(c, placement) for c in candidates),
    )


def _unfit(
    task: str, instance: Instance, value: float | None, placed: int, settings: Settings
) -> str:
    if not _knows(instance, task):
        return "does not register this task"
    if not has_free_slot(instance, settings, placed):
        return "no free slot"
    if value is None:
        return "nothing is known of its load"
    if value <= settings.threshold:
        return f"score {value:.3f} is not above {settings.threshold}"
    return ""


def _choose(
    task: str,
    snapshot: Snapshot,
    ready: list[Instance],
    best: tuple[float, str] | None,
    settings: Settings,
    placed: Mapping[str, int],
) -> Placement:
    if best is not None:
        chosen = next(i for i in ready if i.id == best[1])
        return to_free_slot(task, chosen, -best[0], settings)
    holders = _holders(task, ready, snapshot)
    if not holders:
        reason = _shared_reason(task, ready)
        return Placement(task=task, instance=None, score=None, reason=reason)
    _, _, nearest = min((_line_per_slot(i, placed.get(i.id, 0)), i.id, i) for i in holders)
    return Placement(
        task=task,
        instance=nearest.id,
        score=score(nearest, settings, placed.get(nearest.id, 0)),
        reason=DIRECT_ONLY,
    )


def _line_per_slot(instance: Instance, placed: int) -> float:
    return _line(instance, placed) / max(1, instance.load.slots or 1)


def _with_loser_reason(candidate: Candidate, placement: Placement) -> Candidate:
    if candidate.instance == placement.instance:
        return replace(candidate, why_not="")
    if candidate.why_not or candidate.score is None or placement.score is None:
        return candidate
    if candidate.score < placement.score:
        return replace(candidate, why_not=f"scores below {placement.score:.6f}")
    return replace(candidate, why_not=f"same score, {placement.instance} is the lower id")


class Placer:
    """The rule of `explain` over one snapshot, as an index that counts its own placements.

    Not thread-safe: the caller holds a lock. `place` costs O(log n) for n instances; the first
    placement of a task name costs O(n).

    Why lazy heaps are right: within a snapshot placements are only added, so a score only falls
    and a line only grows. A stale entry therefore looks better than the truth, comes to the top,
    and is corrected there before it can be chosen.
    """

    def __init__(
        self, snapshot: Snapshot, settings: Settings, placed: Mapping[str, int] | None = None
    ) -> None:
        self.snapshot = snapshot
        self._settings = settings
        self._known = {i.id: i for i in snapshot.instances}
        self._ready = [i for i in snapshot.instances if not unready(i, snapshot, settings)]
        self._placed: dict[str, int] = dict(placed or {})
        self._merit: dict[str, float | None] = dict.fromkeys(self._known)
        self._lines: dict[str, float] = {}
        self._indexes: dict[tuple[bool, ...], _TaskIndex] = {}
        self._tasks: dict[str, _TaskIndex] = {}
        self._shared: dict[str, Placement] = {}
        # Few: the instances of a fleet mostly run the same code.
        self._profiles = list({id(i.profile): i.profile for i in snapshot.instances}.values())
        for instance in snapshot.instances:
            self._lines[instance.id] = _line_per_slot(instance, self._placed.get(instance.id, 0))
        for instance in self._ready:
            self._merit[instance.id] = self._judge(instance)

    @property
    def placed(self) -> Mapping[str, int]:
        """Own placements by instance id, those given at the start included."""
        return self._placed

    def place(self, task: str) -> Placement:
        """Choose for one task and count it as placed."""
        index = self._index_of(task)
        chosen = _top(index.by_merit, self._merit)
        if chosen is not None:
            value = -(self._merit[chosen] or 0.0)
            self._count(chosen)
            return to_free_slot(task, self._known[chosen], value, self._settings)
        chosen = _top(index.by_line, self._lines)
        if chosen is None:
            return self._shared_placement(task, index)
        instance, before = self._known[chosen], self._placed.get(chosen, 0)
        self._count(chosen)
        return Placement(
            task=task,
            instance=chosen,
            score=score(instance, self._settings, before),
            reason=DIRECT_ONLY,
        )

    def _shared_placement(self, task: str, index: _TaskIndex) -> Placement:
        known = self._shared.get(task)
        if known is None:
            reason = index.shared_reason
            known = Placement(task=task, instance=None, score=None, reason=reason)
            self._shared[task] = known
        return known

    def place_many(self, task: str, count: int) -> list[Placement]:
        """Choose for several tasks of one name, one after the other, and count them as placed."""
        placements: list[Placement] = []
        while len(placements) < count:
            placement = self.place(task)
            if placement.instance is None:
                # Within a snapshot slots are only taken: nobody becomes eligible any more.
                return placements + [placement] * (count - len(placements))
            placements.append(placement)
        return placements

    def contenders(self, task: str, count: int) -> tuple[Instance, ...]:
        """Up to `count` instances that matter most for a task: whom it would choose comes first."""
        index = self._index_of(task)
        chosen = _top(index.by_merit, self._merit) or _top(index.by_line, self._lines)
        fit = ((m, i) for _, i in index.by_merit if (m := self._merit[i]) is not None)
        best = [instance_id for _, instance_id in heapq.nsmallest(count, fit)]
        first = [chosen] if chosen is not None else []
        ids = dict.fromkeys(itertools.chain(first, best, self._known))
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
        by_merit = [
            (m, i.id)
            for i in self._ready
            if _knows(i, task) and (m := self._merit[i.id]) is not None
        ]
        holders = _holders(task, self._ready, self.snapshot)
        by_line = [(self._lines[i.id], i.id) for i in holders]
        heapq.heapify(by_merit)
        heapq.heapify(by_line)
        return _TaskIndex(by_merit, by_line, _shared_reason(task, self._ready))

    def _count(self, instance_id: str) -> None:
        placed = self._placed[instance_id] = self._placed.get(instance_id, 0) + 1
        instance = self._known[instance_id]
        if self._merit[instance_id] is not None:
            self._merit[instance_id] = self._judge(instance)
        self._lines[instance_id] = _line_per_slot(instance, placed)

    def _judge(self, instance: Instance) -> float | None:
        """The negative score if the instance is eligible for what it knows, else None."""
        placed = self._placed.get(instance.id, 0)
        value = score(instance, self._settings, placed)
        if value is None or value <= self._settings.threshold:
            return None
        return -value if has_free_slot(instance, self._settings, placed) else None


@dataclass(slots=True)
class _TaskIndex:
    """The instances for some tasks: by falling score; by growing line where those are needed."""

    by_merit: list[tuple[float, str]]
    by_line: list[tuple[float, str]]
    shared_reason: str


def _top(heap: list[tuple[float, str]], current: Mapping[str, float | None]) -> str | None:
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
