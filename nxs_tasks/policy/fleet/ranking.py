"""In which order instances come for a task, beyond their score.

Every instance ranks by *score × weight*. The weight is 1, and less where work is to come slowly: it
rises from a tenth to 1 over `slow_start` after an instance became ACTIVE (Envoy's slow start, with
a linear curve), and is `degraded_weight` for one that is DEGRADED, or was lost so often that it
counts against it. Only the differences count: if all are new, nobody has to wait.

Among the `CHOICES` best ones that can take a task, *crowding* is taken off: the share of an
instance's slots that run the same task already, times `crowding`; for a task that declares
`io=True` the share that runs any such task, times `io_crowding`. A few and not all, so that a
choice costs the same in a large fleet.
"""

from __future__ import annotations

from collections.abc import Iterable

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.flapping import level
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.settings import Settings

#: Of so many best ones, what concerns a single task makes the choice.
CHOICES = 8
#: Share of its weight that a new instance has at least.
LEAST_RAMP = 0.1


def ramp(instance: Instance, now: float, settings: Settings) -> float:
    """How far an instance has come since it is ACTIVE, 0.1..1; `now` is the server's time, s."""
    if instance.state is not State.ACTIVE:
        return 1.0
    return min(1.0, max(LEAST_RAMP, (now - instance.since) / settings.slow_start))


def weights(ready: Iterable[Instance], now: float, settings: Settings) -> dict[str, float]:
    """By instance id, what its score is multiplied by to rank it."""
    found = {}
    for instance in ready:
        # The quick question first: it is asked of all, a thousand times a second.
        flapped = instance.flapping.level and level(instance, settings, now)
        degraded = instance.state is State.DEGRADED or flapped
        least = settings.degraded_weight if degraded else 1.0
        found[instance.id] = least * ramp(instance, now, settings)
    peak = max(found.values(), default=1.0)
    return {id_: weight / peak for id_, weight in found.items()}


class Ranking:
    """The order of the ready instances of one snapshot."""

    def __init__(self, snapshot: Snapshot, ready: Iterable[Instance], settings: Settings) -> None:
        ready = list(ready)
        self._settings = settings
        self._weights = weights(ready, snapshot.taken_at, settings)
        io = self._io_names = {
            name
            for profile in {id(i.profile): i.profile for i in ready}.values()
            if profile is not None
            for name, traits in profile.traits.items()
            if traits.io
        }
        #: By instance id, tasks that declare io=True.
        self._io = {i.id: sum(n for name, n in i.load.types.items() if name in io) for i in ready}

    def base(self, instance: Instance, score: float) -> float:
        """Its rank for any task."""
        return score * self._weights.get(instance.id, 1.0)

    def merit(self, instance: Instance, base: float, demand: Demand, placed: Placed) -> float:
        """Its rank for this one."""
        return base - self._crowding(instance, demand, placed)

    def is_plain(self, instance: Instance, demand: Demand, placed: Placed) -> bool:
        """Whether it ranks for this task as for any."""
        return not self._alike(instance, demand, placed)

    def _alike(self, instance: Instance, demand: Demand, placed: Placed) -> int:
        """Tasks there that compete with this one for the same thing."""
        types = instance.load.types
        if demand.io:
            # A name that no instance knows to do so is declared by the submitter alone.
            alone = 0 if demand.task in self._io_names else types.get(demand.task, 0)
            return alone + self._io.get(instance.id, 0) + placed.io.get(instance.id, 0)
        found = types.get(demand.task, 0) if types else 0
        return found + placed.tasks.get((instance.id, demand.task), 0)

    def _crowding(self, instance: Instance, demand: Demand, placed: Placed) -> float:
        settings = self._settings
        share = self._alike(instance, demand, placed) / (instance.load.slots or 1)
        return min(1.0, share) * (settings.io_crowding if demand.io else settings.crowding)
