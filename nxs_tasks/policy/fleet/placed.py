"""Own placements since a snapshot was taken, which it cannot know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from nxs_tasks.model.demand import Demand


class Placed:
    """What was placed where: as many slots, of which tasks, with how much memory and which keys."""

    __slots__ = ("io", "keys", "memory", "slots", "tasks")

    def __init__(self, slots: Mapping[str, int] | None = None) -> None:
        """`slots` is a start: by instance id, slots that are taken."""
        self.slots: Counter[str] = Counter(slots)
        self.io: Counter[str] = Counter()
        self.tasks: Counter[tuple[str, str]] = Counter()
        self.memory: Counter[str] = Counter()
        #: By instance id, affinity keys, the newest first.
        self.keys: dict[str, list[str]] = {}

    def add(self, demand: Demand, instance_id: str) -> None:
        """Count one placement."""
        self.slots[instance_id] += demand.slots
        if demand.io:
            self.io[instance_id] += 1
        self.tasks[instance_id, demand.task] += 1
        if demand.memory:
            self.memory[instance_id] += demand.memory
        if demand.key:
            self.add_key(demand.key, instance_id)

    def add_key(self, key: str, instance_id: str) -> None:
        """Note that a key is used there now."""
        known = self.keys.setdefault(instance_id, [])
        if key in known:
            known.remove(key)
        known.insert(0, key)
