"""Why a task waits in the queue in which it is: who takes from it, can run it, has room."""

from __future__ import annotations

from collections.abc import Iterable

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import ENDED
from nxs_tasks.policy.fleet.placement import DIRECT_ONLY
from nxs_tasks.policy.fleet.readiness import knower, knows, lack
from nxs_tasks.policy.fleet.takers import Case, has_room_now, has_slots, is_warm, why_idle

#: Instances that a sentence names at most.
NAMED = 3


def unmanned(case: Case) -> str:
    """Why nobody takes it from its queue, or who does cannot run it; "" if somebody can."""
    where = case.where
    if case.takers.able:
        return ""
    if where.own_of:
        return _unmanned_own(case)
    if case.takers.ready:
        return _unable(case)
    consumers = [
        i
        for i in case.snapshot.instances
        if i.state not in ENDED and i.profile is not None and where.queue in i.profile.queues
    ]
    if not consumers:
        return f"nobody consumes {where.queue}: no instance of the fleet takes from it"
    return f"nobody takes from {where.queue} now: {_named(case, consumers)}"


def _unmanned_own(case: Case) -> str:
    where = case.where
    instance = case.snapshot.get(where.own_of)
    if instance is None:
        return (
            f"waits for {where.own_of}, which is no part of the fleet any more: "
            "it runs when a worker of that name starts"
        )
    reason = why_idle(instance, where, case.snapshot, case.settings)
    reason = reason or lack(instance, where.task)
    return f"{_own_lead(case, instance)}: {reason}"


def _unable(case: Case) -> str:
    """Nobody who takes from its queue can run it: whoever takes it sends it on."""
    where = case.where
    lacks = {lack(i, where.task) for i in case.takers.ready}
    why_not = lacks.pop() if len(lacks) == 1 else "each for a reason of its own"
    found = knower(where.task, case.snapshot, where.queue, but="")
    then = f"sends it on to {found}" if found is not None else "parks it"
    return f"nobody who takes from {where.queue} can run it ({why_not}): who takes it {then}"


def in_own(case: Case) -> str:
    """It waits in the own queue of an instance that takes from it."""
    instance = case.takers.able[0]
    lead = _own_lead(case, instance)
    if not has_room_now(instance, case.demand):
        return f"{lead}: {case.no_room(instance)} ({_taken([instance])}), {case.before}"
    return f"{lead}: a slot is free, {case.before}"


def _own_lead(case: Case, instance: Instance) -> str:
    where, id_ = case.where, instance.id
    if not where.placed:
        return f"is pinned by its sender, who put it into the queue of {id_}"
    if is_warm(instance, where.key, case.settings):
        return f"waits for the warm cache of {id_}"
    if _only(case) == id_:
        return f"only {id_} can run it"
    if where.placed_why == DIRECT_ONLY:
        return f"not every instance can run it, and it was placed on {id_}"
    return f"was placed on {id_}"


def in_queue(case: Case) -> str:
    """It waits in a queue that several may take from."""
    where = case.where
    shared = where.queue == case.snapshot.shared_queue
    lead = "waits in the shared queue" if shared else f"was sent to {where.queue} by name"
    only = _only(case)
    if only:
        lead = f"{lead}, and only {only} can run it"
    able = case.takers.able
    if any(has_room_now(i, case.demand) for i in able):
        return f"{lead}: a slot is free, {case.before}"
    if any(has_slots(i, Demand(where.task)) for i in able):
        return f"{lead}: nobody has room for what it declares, {case.before}"
    return f"{lead}: nobody has a free slot ({_taken(able)}), {case.before}"


def _taken(instances: Iterable[Instance]) -> str:
    counts = [(i.held or 0, i.load.slots or 0) for i in instances]
    return f"{sum(held for held, _ in counts)} of {sum(slots for _, slots in counts)} are taken"


def _only(case: Case) -> str:
    """The one instance that can run it, where there are others; "" if several can."""
    alive = [i for i in case.snapshot.instances if i.state not in ENDED]
    able = [i.id for i in alive if knows(i, case.where.task)]
    return able[0] if len(able) == 1 and len(alive) > 1 else ""


def _named(case: Case, instances: list[Instance]) -> str:
    told = [
        f"{i.id} {why_idle(i, case.where, case.snapshot, case.settings)}" for i in instances[:NAMED]
    ]
    more = len(instances) - NAMED
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")
