"""The precondition of a placement, as the write checks it: a free slot at the instance chosen."""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted

from nxs_tasks.model.decision import Placement
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.keys import Wire
from nxs_tasks.store.publisher import Room

#: Of a fleet that changes all the time no more are kept.
KEPT = 10_000


class Rooms:
    """Finds them for one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._rooms: dict[tuple[str, int | None, int | None, int, str], Room] = {}

    def of(self, placement: Placement, list_key: str) -> Room | None:
        """For a list of an instance's own queue; None for any other."""
        instance, limit = placement.instance, placement.limit
        if instance is None:
            return None
        about = (instance, placement.epoch, limit, placement.cost, list_key)
        found = self._rooms.get(about)
        if found is None:
            if len(self._rooms) >= KEPT:
                self._rooms.clear()
            found = self._rooms[about] = self._made(*about)
        return found

    def _made(
        self, instance: str, epoch: int | None, limit: int | None, cost: int, list_key: str
    ) -> Room:
        runtime, keys = self._runtime, self._runtime.keys
        wire = Wire.from_options(runtime.app.conf.broker_transport_options or {})
        own, shared = keys.own_queue(instance), runtime.shared_queue
        mine = wire.queue_keys(own)
        parts = (
            instance,
            keys.instance(instance),
            "" if epoch is None else str(epoch),
            wire.prefix + keys.inflight(instance, epoch or 0),
            "" if limit is None else str(limit),
            str(cost),
            quoted(own),
            quoted(shared),
            *mine,
        )
        return Room(wire.queue_keys(shared)[mine.index(list_key)], keys.waiting(), parts)
