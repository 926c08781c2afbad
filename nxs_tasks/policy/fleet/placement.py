"""Where a task goes: the instance with the highest score among those with a free slot.

Late binding (design, section 4): an instance is *eligible* for a task if

1. it is ACTIVE or DEGRADED, is not silent, and consumes the shared queue,
2. the task is registered there,
3. it has a free slot: held + waiting in its own queue + placed since < saturation × slots,
4. its score is above the threshold.

The highest score wins; ties go to the lower id. If none is eligible the task goes to the shared
queue, which the first free slot pulls from, so nothing waits while a slot is free. One case is
different: if some instances of the fleet do not know the task, the shared queue would hand it to
one of them, and Celery discards what it does not know. Then the instance that knows it and has
the shortest line per slot gets it, without asking for a free slot or for the threshold.

`explain` is the rule, readable and O(instances). `Placer` is the same rule as an index that is
built once per snapshot and answers in O(log instances); a property test holds them together.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nxs_tasks.model.decision import Candidate, Explanation, Placement
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import PLACEABLE
from nxs_tasks.policy.fleet.score import score, terms, weigh
from nxs_tasks.settings import Settings

SHARED_UNKNOWN = "no instance registers this task: the shared queue, as in plain Celery"
SHARED_BUSY = "no instance with a free slot scores above the threshold: first free slot pulls"
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


def _line(instance: Instance, placed: int) -> int:
    return (instance.held or 0) + (instance.queued or 0) + placed


def has_free_slot(instance: Instance, settings: Settings, placed: int = 0) -> bool:
    """Whether one more task would find a slot: held + queued + placed < saturation × slots."""
    return _line(instance, placed) + 1 <= settings.saturation * (instance.load.slots or 0)


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
    placement = _choose(task, ready, best, settings, placed)
    return Explanation(
        placement=placement,
        candidates=tuple(_with_loser_reason(c, placement) for c in candidates),
    )


def _unfit(
    task: str, instance: Instance, value: float | None, placed: int, settings: Settings
) -> str:
    if instance.profile is None or task not in instance.profile.tasks:
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
    ready: list[Instance],
    best: tuple[float, str] | None,
    settings: Settings,
    placed: Mapping[str, int],
) -> Placement:
    if best is not None:
        return Placement(task=task, instance=best[1], score=-best[0], reason=DIRECT_BEST)
    if not ready:
        return Placement(task=task, instance=None, score=None, reason=SHARED_EMPTY)
    knowing = [i for i in ready if i.profile is not None and task in i.profile.tasks]
    if not knowing:
        return Placement(task=task, instance=None, score=None, reason=SHARED_UNKNOWN)
    if len(knowing) == len(ready):
        return Placement(task=task, instance=None, score=None, reason=SHARED_BUSY)
    _, chosen = min(((_line_per_slot(i, placed.get(i.id, 0)), i.id), i) for i in knowing)
    return Placement(
        task=task,
        instance=chosen.id,
        score=score(chosen, settings, placed.get(chosen.id, 0)),
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
        return replace(candidate, why_not=f"scores below {placement.score:.3f}")
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
        self._ready = {i.id: i for i in snapshot.instances if not unready(i, snapshot, settings)}
        self._placed: dict[str, int] = dict(placed or {})
        self._merit: dict[str, float | None] = {}
        self._lines: dict[str, float] = {}
        self._tasks: dict[str, _TaskIndex] = {}
        for instance_id in self._ready:
            self._recount(instance_id)

    @property
    def placed(self) -> Mapping[str, int]:
        """Own placements by instance id, those given at the start included."""
        return self._placed

    def place(self, task: str) -> Placement:
        """Choose for one task and count it as placed."""
        index = self._tasks.get(task)
        if index is None:
            index = self._tasks[task] = self._index(task)
        chosen = _top(index.by_merit, self._merit)
        if chosen is not None:
            value = self._merit[chosen]
            self._count(chosen)
            return Placement(
                task=task,
                instance=chosen,
                score=None if value is None else -value,
                reason=DIRECT_BEST,
            )
        chosen = _top(index.by_line, self._lines)
        if chosen is None:
            return Placement(task=task, instance=None, score=None, reason=index.shared_reason)
        instance, before = self._ready[chosen], self._placed.get(chosen, 0)
        self._count(chosen)
        return Placement(
            task=task,
            instance=chosen,
            score=score(instance, self._settings, before),
            reason=DIRECT_ONLY,
        )

    def contenders(self, task: str, count: int) -> tuple[Instance, ...]:
        """Up to `count` instances that matter most for a task: the best first, then others."""
        index = self._tasks.get(task)
        if index is None:
            index = self._tasks[task] = self._index(task)
        best = [name for _, name in heapq.nsmallest(count, index.by_merit)]
        chosen = [self._ready[name] for name in dict.fromkeys(best)]
        known = {i.id for i in chosen}
        rest = (i for i in self.snapshot.instances if i.id not in known)
        return tuple(itertools.islice(itertools.chain(chosen, rest), count))

    def _index(self, task: str) -> _TaskIndex:
        knowing = [
            i for i in self._ready.values() if i.profile is not None and task in i.profile.tasks
        ]
        by_merit = [(m, i.id) for i in knowing if (m := self._merit[i.id]) is not None]
        heapq.heapify(by_merit)
        by_line: list[tuple[float, str]] = []
        if not self._ready:
            reason = SHARED_EMPTY
        elif not knowing:
            reason = SHARED_UNKNOWN
        else:
            reason = SHARED_BUSY
            if len(knowing) < len(self._ready):
                by_line = [(self._lines[i.id], i.id) for i in knowing]
                heapq.heapify(by_line)
        return _TaskIndex(by_merit, by_line, reason)

    def _count(self, instance_id: str) -> None:
        self._placed[instance_id] = self._placed.get(instance_id, 0) + 1
        self._recount(instance_id)

    def _recount(self, instance_id: str) -> None:
        instance, placed = self._ready[instance_id], self._placed.get(instance_id, 0)
        value = score(instance, self._settings, placed)
        fits = value is not None and value > self._settings.threshold
        self._merit[instance_id] = (
            -value
            if value is not None and fits and has_free_slot(instance, self._settings, placed)
            else None
        )
        self._lines[instance_id] = _line_per_slot(instance, placed)


@dataclass(slots=True)
class _TaskIndex:
    """The instances that know one task: by falling score, and by growing line where needed."""

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
