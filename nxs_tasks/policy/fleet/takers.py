"""Who takes from the queue in which a task waits, and whether there is room for it now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nxs_tasks.model.decision import Steal
from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.why import Whereabouts
from nxs_tasks.policy.fleet.affinity import keys_of
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import has_memory
from nxs_tasks.policy.fleet.readiness import knows, unready
from nxs_tasks.policy.fleet.stealing import steal
from nxs_tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Takers:
    """The instances that matter for one waiting task."""

    ready: tuple[Instance, ...]  # take from its queue now
    able: tuple[Instance, ...]  # of these, those that can run it
    thieves: tuple[Instance, ...]  # idle ones that may take it out of another's own queue


@dataclass(frozen=True, slots=True)
class Case:
    """One waiting task and the fleet around it."""

    where: Whereabouts
    demand: Demand
    snapshot: Snapshot
    settings: Settings
    now: float
    takers: Takers

    @property
    def taken_by(self) -> str:
        """The name by which its queue is paused: an own one by that of the shared one."""
        return self.snapshot.shared_queue if self.where.own_of else self.where.queue

    @property
    def before(self) -> str:
        """What is before it in its queue."""
        return f"{self.where.ahead} before it" if self.where.ahead else "nothing before it"

    def no_room(self, instance: Instance) -> str:
        """Why it would not start there now, if it were the next to be taken."""
        if has_slots(instance, Demand(self.where.task)):
            return "no room for what this task declares"
        return "no free slot"


def view(where: Whereabouts, snapshot: Snapshot) -> Snapshot:
    """The fleet as a task sees it that waits in a named queue: there that one is the shared one."""
    if where.own_of or not where.queue:
        return snapshot
    return replace(snapshot, shared_queue=where.queue)


def why_idle(instance: Instance, where: Whereabouts, snapshot: Snapshot, settings: Settings) -> str:
    """Why an instance takes nothing from the queue of a task at all; "" if it does."""
    if where.own_of != instance.id:
        return unready(instance, view(where, snapshot), settings)
    # From its own queue every instance takes, whichever others it was started for.
    queues = instance.profile.queues if instance.profile is not None else ()
    any_queue = next(iter(queues), snapshot.shared_queue)
    return unready(instance, replace(snapshot, shared_queue=any_queue), settings)


def takers(where: Whereabouts, demand: Demand, snapshot: Snapshot, settings: Settings) -> Takers:
    """Who takes from the queue of a task."""
    among = snapshot.instances
    if where.own_of:
        among = tuple(i for i in among if i.id == where.own_of)
    ready = tuple(i for i in among if not why_idle(i, where, snapshot, settings))
    able = tuple(i for i in ready if knows(i, demand.task))
    return Takers(ready, able, _thieves(where, demand, snapshot, settings))


def has_slots(instance: Instance, demand: Demand) -> bool:
    """Whether the slots that a task takes are free now."""
    slots, held = instance.load.slots, instance.held
    return slots is not None and held is not None and held + demand.slots <= slots


def has_room_now(instance: Instance, demand: Demand) -> bool:
    """Whether a task would start there now, if it were the next to be taken."""
    return has_slots(instance, demand) and has_memory(instance, demand, Placed())


def is_warm(instance: Instance, key: str, settings: Settings) -> bool:
    """Whether an instance's cache is warm for a key, as its last heartbeat tells."""
    return bool(key) and key in keys_of(instance, Placed(), settings)


def _thieves(
    where: Whereabouts, demand: Demand, snapshot: Snapshot, settings: Settings
) -> tuple[Instance, ...]:
    victim = snapshot.get(where.own_of) if where.own_of and where.placed else None
    # While something waits for everybody, nobody is idle.
    if victim is None or snapshot.shared_depth:
        return ()
    line = replace(snapshot, instances=(victim,))
    found = []
    for thief in snapshot.instances:
        if thief.queued or not has_room_now(thief, demand) or not knows(thief, demand.task):
            continue
        if where.key and not is_warm(thief, where.key, settings):
            continue
        if isinstance(steal(thief, line, settings), Steal):
            found.append(thief)
    return tuple(found)
