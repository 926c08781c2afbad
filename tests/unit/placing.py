"""Both forms of the rule of placement on one task, which must agree; and what is read from it."""

from __future__ import annotations

from copy import deepcopy

from nxs_tasks.model.decision import Explanation
from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.policy.fleet.placer import Placer
from nxs_tasks.settings import Settings
from tests.unit.builders import a_snapshot, knobs

SPEC = knobs(affinity_wait=4)


def weighed(
    demand: Demand, *instances: Instance, settings: Settings = SPEC, placed: Placed | None = None
) -> Explanation:
    """Where a task goes after what was `placed`, and why nowhere else."""
    snapshot, before = a_snapshot(*instances), placed or Placed()
    found = explain(demand, snapshot, settings, deepcopy(before))
    assert Placer(snapshot, settings, deepcopy(before)).place(demand) == found.placement
    return found


def why_not(found: Explanation) -> dict[str, str]:
    """By instance; of the one that was chosen it is empty."""
    return {c.instance: c.why_not for c in found.candidates}


def spread(
    count: int, demand: Demand, *instances: Instance, settings: Settings = SPEC
) -> list[str | None]:
    """Where so many tasks go, one after the other; None is the shared queue."""
    placer = Placer(a_snapshot(*instances), settings)
    return [placer.place(demand).instance for _ in range(count)]
