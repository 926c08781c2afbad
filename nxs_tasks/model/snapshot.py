"""The fleet at one moment, as read from the store in one script."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nxs_tasks.model.holder import Holder
from nxs_tasks.model.instance import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet at one moment. `taken_at` is the server's time, not the reader's."""

    taken_at: float
    instances: tuple[Instance, ...]  # sorted by id
    shared_queue: str
    shared_depth: int | None = None
    server_started_at: float | None = None
    holders: tuple[Holder, ...] = ()  # who may hold messages; only in a full snapshot
    observed_since: float | None = None  # the lifecycle has been evaluated since, without a break
    believed_since: float | None = None  # the first look after one that was not believed
    late_s: float = 0.0  # by how much this look at the fleet comes later than planned, s

    def get(self, instance_id: str) -> Instance | None:
        """The instance of that id, or None."""
        return next((i for i in self.instances if i.id == instance_id), None)

    def without(self, instance_id: str) -> Snapshot:
        """The same fleet without one of its instances."""
        return replace(self, instances=tuple(i for i in self.instances if i.id != instance_id))

    def in_service(self) -> Snapshot:
        """The same fleet without those that are cordoned."""
        return replace(self, instances=tuple(i for i in self.instances if not i.cordoned))
