"""Why a task that waits does not run on this instance now, for each."""

from __future__ import annotations

from dataclasses import replace

from nxs_tasks.model.decision import Candidate
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.model.why import NotThere, Whereabouts
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.policy.fleet.readiness import knows, lack
from nxs_tasks.policy.fleet.takers import Case, has_room_now, is_warm, view, why_idle


def not_there(case: Case, hold: str) -> tuple[NotThere, ...]:
    """One reason for each instance; `hold` is what keeps it from all of them, "" if nothing."""
    seen = view(case.where, case.snapshot)
    told = explain(replace(case.demand, key=""), seen, case.settings).candidates
    by_id = {c.instance: c for c in told}
    return tuple(
        NotThere(instance=i.id, reason=_reason(i, by_id[i.id], case, hold) + _unwell(i))
        for i in case.snapshot.instances
    )


def _unwell(instance: Instance) -> str:
    """Why it ranks after others, to be added to any reason."""
    if instance.state is not State.DEGRADED or not instance.load.unhealthy:
        return ""
    return f" (DEGRADED: {instance.load.unhealthy})"


def _reason(instance: Instance, candidate: Candidate, case: Case, hold: str) -> str:
    where = case.where
    why_not = why_idle(instance, _as_seen_by(instance, case), case.snapshot, case.settings)
    if why_not:
        return why_not
    if not knows(instance, where.task):
        return lack(instance, where.task)
    if hold:
        return f"could run it, but {hold}"
    if where.own_of and instance.id != where.own_of:
        return _not_mine(instance, case)
    if not has_room_now(instance, case.demand):
        return f"{case.no_room(instance)}, {case.before}"
    if instance.queued and not where.own_of:
        return f"its free slots go to the {instance.queued} that wait for it alone"
    if candidate.score is None or candidate.score <= case.settings.threshold:
        return f"{candidate.why_not}: nothing is placed there, but it takes from {where.queue}"
    return f"has a free slot and takes it in its turn, {case.before}"


def _as_seen_by(instance: Instance, case: Case) -> Whereabouts:
    """Where the task is; for others than its own instance, the queue that it could have been in."""
    if not case.where.own_of or instance.id == case.where.own_of:
        return case.where
    return replace(case.where, own_of="", queue=case.snapshot.shared_queue)


def _not_mine(instance: Instance, case: Case) -> str:
    """Why an instance does not run what waits for another one, though it could."""
    own_of = case.where.own_of
    if instance in case.takers.thieves:
        return f"is idle, and takes over what waits for {own_of} within seconds"
    if not has_room_now(instance, case.demand):
        return case.no_room(instance)
    if not case.where.placed:
        return f"has a free slot, but its sender chose {own_of}"
    owner = case.snapshot.get(own_of)
    if owner is not None and is_warm(owner, case.where.key, case.settings):
        return f"has a free slot, but the cache is warm at {own_of}"
    return f"has a free slot, but it is in the queue of {own_of}"
