"""Where a message goes that finds no room in the worker that has taken it.

It was taken for a free slot, and declares more than that: memory, or several slots. While it waits
nothing else starts there, so that it starts some time; but as soon as another instance has the room
it starts there.
"""

from __future__ import annotations

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.policy.fleet.readiness import traits_of
from nxs_tasks.policy.fleet.takers import has_room_now
from nxs_tasks.settings import Settings


def roomier(task: str, holder: str, snapshot: Snapshot, settings: Settings) -> str | None:
    """The best of the other instances that have room for a task now; None if none has."""
    traits = traits_of(task, snapshot.instances)
    demand = Demand(task, io=traits.io, slots=traits.slots, memory=traits.memory)
    found = explain(demand, snapshot.without(holder), settings, Placed()).placement.instance
    instance = None if found is None else snapshot.get(found)
    # Where not every instance knows it, the placement is told though there is no room.
    return found if instance is not None and has_room_now(instance, demand) else None
