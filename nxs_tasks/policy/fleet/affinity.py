"""Which instances have a warm cache for a task, and when it is worth waiting for one.

A task with an affinity key goes to

1. an instance whose cache is warm for the key and that has a free slot: the shortest line;
2. else one whose cache is warm and whose line is below (1 + `affinity_wait`) × slots: the shortest;
3. else where it would go without a key. That makes another copy, so what is wanted much spreads.

Warm are the last `affinity_keys` keys that were used there, as heartbeats tell, after what this
process has placed there since. Simulated with 87 models of which 8 instances hold 2 each, the
second rule brings the hits: 35 % without keys, 75 % with a wait of 2, 81 % with 6; it costs time,
which is why it has a bound (`bench placement`, scenario S5).
"""

from __future__ import annotations

from collections.abc import Iterable

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.readiness import line
from nxs_tasks.settings import Settings


def keys_of(instance: Instance, placed: Placed, settings: Settings) -> tuple[str, ...]:
    """Keys for which an instance's cache is warm, the newest first."""
    own = placed.keys.get(instance.id, ())
    return tuple(dict.fromkeys((*own, *instance.load.keys)))[: settings.affinity_keys]


class Warmth:
    """The warm instances of each key; follows own placements."""

    def __init__(self, instances: Iterable[Instance], placed: Placed, settings: Settings) -> None:
        self._settings = settings
        self._placed = placed
        self._instances = {i.id: i for i in instances}
        self._warm: dict[str, set[str]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        for instance in self._instances.values():
            self._learn(instance)

    def of(self, key: str) -> list[Instance]:
        """Those that are warm for a key, by id."""
        return [self._instances[id_] for id_ in sorted(self._warm.get(key, ()))]

    def has(self, instance_id: str, key: str) -> bool:
        """Whether an instance is warm for a key."""
        return instance_id in self._warm.get(key, ())

    def placed(self, instance_id: str) -> None:
        """A task with a key was placed there, and is noted in `placed`."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            for key in self._keys[instance_id]:
                self._warm[key].discard(instance_id)
            self._learn(instance)

    def _learn(self, instance: Instance) -> None:
        keys = self._keys[instance.id] = keys_of(instance, self._placed, self._settings)
        for key in keys:
            self._warm.setdefault(key, set()).add(instance.id)


def warm_choice(
    demand: Demand, warm: Iterable[Instance], placed: Placed, settings: Settings
) -> tuple[Instance, float] | None:
    """The one of `warm` that gets a task, and the bound of its line per slot; None if no one does.

    `warm` can run the task, and have its memory.
    """
    best: tuple[float, str, Instance] | None = None
    for instance in warm:
        slots = instance.load.slots or 0
        before = line(instance, placed.slots.get(instance.id, 0))
        if before + demand.slots <= (1.0 + settings.affinity_wait) * slots:
            entry = (before / slots, instance.id, instance)
            if best is None or entry[:2] < best[:2]:
                best = entry
    if best is None:
        return None
    chosen = best[2]
    after = line(chosen, placed.slots.get(chosen.id, 0)) + demand.slots
    free = after <= settings.saturation * (chosen.load.slots or 0)
    return chosen, settings.saturation if free else 1.0 + settings.affinity_wait
