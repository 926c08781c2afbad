"""Where a task goes: the instance that ranks first among those with a free slot.

Late binding (design, section 4): an instance is *eligible* for a task if

1. it is ACTIVE or DEGRADED, is not silent or ejected, and consumes the shared queue,
2. it can run the task: the task is registered there, and it has what the task needs,
3. it has a free slot for one more: held + waiting in its own queue + placed since + 1
   ≤ saturation × slots,
4. its score is above the threshold.

Of these the first by *score × weight*; among the few best, how many of its kind run there decides
(`ranking.py`). A task with an affinity key goes where the cache is warm (`affinity.py`). Ties go to
the lower id. If none is eligible the task goes to the shared queue,
which the first free slot pulls from, so nothing waits while a slot is free. One case is different:
if some live consumer of the shared queue cannot run the task, the queue might hand it to that one,
which discards it (stock Celery) or has to send it on. Then the instance that can run it and has the
shortest line per slot gets it, without asking for a free slot or for the threshold; one that is
ready for work before one that is only alive.

`explain` is the rule, readable and O(instances). `Placer` is the same rule as an index that is
built once per snapshot and answers in O(log instances); a property test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nxs_tasks.model.decision import Candidate, Explanation, Placement
from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.affinity import Warmth, warm_choice
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.ranking import CHOICES, Ranking
from nxs_tasks.policy.fleet.readiness import holders, knows, lack, line, line_per_slot, unready
from nxs_tasks.policy.fleet.score import score, terms, weigh
from nxs_tasks.settings import Settings

SHARED_UNKNOWN = "no instance registers this task: the shared queue, as in plain Celery"
SHARED_BUSY = "no instance has both a free slot and a score above the threshold: first to be free"
SHARED_EMPTY = "no instance is ready for work: the shared queue"
SHARED_COSTLY = "no instance has room for what this task declares: first to be free"
DIRECT_BEST = "highest score of those with a free slot"
DIRECT_ALONE = "ranks first of those with a free slot, by how much it runs of the same task"
DIRECT_WARM = "its cache is warm, and it has a free slot"
DIRECT_WAIT = "waits for an instance whose cache is warm"
DIRECT_ONLY = "not every instance knows this task: the shortest line among those that do"


def shared_reason(task: str, ready: Iterable[Instance]) -> str:
    """Why a task goes to the shared queue for which nobody is eligible."""
    knowing = [knows(i, task) for i in ready]
    return SHARED_EMPTY if not knowing else SHARED_BUSY if any(knowing) else SHARED_UNKNOWN


def has_free_slot(instance: Instance, settings: Settings, placed: int = 0) -> bool:
    """Whether one more task would find a slot: held + queued + placed + 1 ≤ saturation × slots."""
    return line(instance, placed) + 1 <= settings.saturation * (instance.load.slots or 0)


def has_room(instance: Instance, demand: Demand, settings: Settings, placed: Placed) -> bool:
    """Whether there are all the slots and the memory that a task declares."""
    slots = line(instance, placed.slots.get(instance.id, 0)) + demand.slots
    fits = slots <= settings.saturation * (instance.load.slots or 0)
    return fits and has_memory(instance, demand, placed)


def has_memory(instance: Instance, demand: Demand, placed: Placed) -> bool:
    """Whether the memory that a task declares is not given to others."""
    memory = instance.profile.memory if instance.profile is not None else None
    if not demand.memory or memory is None:
        return True
    taken = (instance.load.reserved or 0) + placed.memory.get(instance.id, 0)
    return taken + demand.memory <= memory


def within(
    demand: Demand, instance: Instance, value: float | None, reason: str, most: float
) -> Placement:
    """A placement that holds only while the instance has a line of up to `most` per slot."""
    load = instance.load
    elsewhere = (load.early or 0) + (load.extra or 0)
    return Placement(
        task=demand.task,
        instance=instance.id,
        score=value,
        reason=reason,
        epoch=instance.epoch,
        limit=int(most * (load.slots or 0)) - elsewhere,
        cost=demand.slots,
        key=demand.key,
    )


def to_shared(demand: Demand, reason: str) -> Placement:
    """A placement into the shared queue."""
    return Placement(task=demand.task, instance=None, score=None, reason=reason, key=demand.key)


@dataclass(slots=True)
class Eligible:
    """An instance that could be chosen."""

    instance: Instance
    score: float
    base: float
    merit: float | None = None  # None: it was not among those that were looked at more closely


def to_warm(
    demand: Demand, warm: Iterable[Instance], settings: Settings, placed: Placed
) -> Placement | None:
    """A placement at one of those that are ready and have a warm cache, if one takes it."""
    able = [i for i in warm if knows(i, demand.task) and has_memory(i, demand, placed)]
    found = warm_choice(demand, able, placed, settings)
    if found is None:
        return None
    chosen, most = found
    value = score(chosen, settings, placed.slots.get(chosen.id, 0))
    reason = DIRECT_WARM if most == settings.saturation else DIRECT_WAIT
    return within(demand, chosen, value, reason, most)


def explain(
    task: str | Demand,
    snapshot: Snapshot,
    settings: Settings,
    placed: Placed | None = None,
    ranking: Ranking | None = None,
) -> Explanation:
    """Place a task and say why: the terms of each instance, and why it was not the others.

    `placed` counts the caller's own placements since the snapshot; `ranking` is that of the whole
    fleet, if the snapshot is only a part of it.
    """
    demand = Demand(task) if isinstance(task, str) else task
    placed = placed or Placed()
    ready = [i for i in snapshot.instances if not unready(i, snapshot, settings)]
    ranking = ranking or Ranking(snapshot, ready, settings)
    eligible, candidates = _judged(demand.task, snapshot, ranking, settings, placed)
    eligible.sort(key=lambda e: (-e.base, e.instance.id))
    best = _choose(demand, eligible, ranking, settings, placed)
    told = {e.instance.id: _why_lost(e, best) for e in eligible}
    placement = None
    if demand.key:
        placement = to_warm(
            demand, Warmth(ready, placed, settings).of(demand.key), settings, placed
        )
    if placement is not None:
        told = dict.fromkeys(told, f"{placement.instance} has a warm cache")
    elif best is not None:
        reason = DIRECT_BEST if best is eligible[0] else DIRECT_ALONE
        placement = within(demand, best.instance, best.score, reason, settings.saturation)
    else:
        placement = _without_slot(demand, snapshot, ready, bool(eligible), settings, placed)
    return Explanation(
        placement=placement,
        candidates=tuple(_with_reason(c, placement, told) for c in candidates),
    )


def _judged(
    task: str, snapshot: Snapshot, ranking: Ranking, settings: Settings, placed: Placed
) -> tuple[list[Eligible], list[Candidate]]:
    eligible: list[Eligible] = []
    candidates: list[Candidate] = []
    for instance in snapshot.instances:
        parts = terms(instance, settings, placed.slots.get(instance.id, 0))
        value = weigh(parts, settings.weights)
        why_not = unready(instance, snapshot, settings)
        why_not = why_not or _unfit(task, instance, value, settings, placed)
        if not why_not and value is not None:
            eligible.append(Eligible(instance, value, ranking.base(instance, value)))
        candidates.append(
            Candidate(instance=instance.id, score=value, terms=parts, why_not=why_not)
        )
    return eligible, candidates


def _unfit(
    task: str, instance: Instance, value: float | None, settings: Settings, placed: Placed
) -> str:
    if not knows(instance, task):
        return lack(instance, task)
    if not has_free_slot(instance, settings, placed.slots.get(instance.id, 0)):
        return "no free slot"
    if value is None:
        return "nothing is known of its load"
    if value <= settings.threshold:
        return f"score {value:.3f} is not above {settings.threshold}"
    return ""


def _choose(
    demand: Demand,
    eligible: list[Eligible],
    ranking: Ranking,
    settings: Settings,
    placed: Placed,
) -> Eligible | None:
    """The first of the choices by merit, for which `eligible` is in the order of its base."""
    best: Eligible | None = None
    for choice in eligible[:CHOICES]:
        if has_room(choice.instance, demand, settings, placed):
            choice.merit = ranking.merit(choice.instance, choice.base, demand, placed)
            if best is None or choice.merit > (best.merit or 0.0):
                best = choice
    return best


def _without_slot(
    demand: Demand,
    snapshot: Snapshot,
    ready: list[Instance],
    costly: bool,
    settings: Settings,
    placed: Placed,
) -> Placement:
    able = holders(demand.task, ready, snapshot)
    if not able:
        reason = SHARED_COSTLY if costly else shared_reason(demand.task, ready)
        return to_shared(demand, reason)
    before = placed.slots
    _, _, nearest = min((line_per_slot(i, before.get(i.id, 0)), i.id, i) for i in able)
    return Placement(
        task=demand.task,
        instance=nearest.id,
        score=score(nearest, settings, before.get(nearest.id, 0)),
        reason=DIRECT_ONLY,
        key=demand.key,
    )


def _why_lost(loser: Eligible, best: Eligible | None) -> str:
    if best is None:
        return "has no room for what this task declares"
    if loser.merit is None:
        return f"is not among the {CHOICES} that rank first"
    if best.merit is not None and loser.merit < best.merit:
        return f"ranks {loser.merit:.6f}, below {best.merit:.6f}"
    return f"same rank, {best.instance.id} comes first"


def _with_reason(candidate: Candidate, placement: Placement, told: dict[str, str]) -> Candidate:
    if candidate.instance == placement.instance:
        return replace(candidate, why_not="")
    return replace(candidate, why_not=candidate.why_not or told[candidate.instance])
