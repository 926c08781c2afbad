"""What `claim.lua` is given. The transport sends it, on kombu's own connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxs_tasks.model.shelf import DELAYED
from nxs_tasks.store.store import FleetStore

#: Delayed messages that one claim moves when they are due.
MOVE_DUE = 100


def keys_and_arguments(
    store: FleetStore, instance: str, epoch: int, token: str, queues: Sequence[str]
) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV for one delivery to a process that looks into `queues` in this order.

    All lists of the highest priority come first, then all of the next. An own queue is paused by
    the name of the shared queue: what waits there would else have waited here.
    """
    keys, wire = store.keys, store.wire
    own = keys.own_queue("")
    lists, names = [], []
    for step in range(len(wire.steps)):
        for queue in queues:
            lists.append(wire.queue_keys(queue)[step])
            names += [queue, store.shared_queue if queue.startswith(own) else queue]
    of_fleet = [
        keys.instance(instance),
        wire.prefix + keys.inflight(instance, epoch),
        wire.prefix + keys.inflight_index(instance, epoch),
        keys.paused_queues(),
        keys.cancelled(),
        keys.paused_tasks(),
        keys.shelf_index(DELAYED),
        keys.shelf(DELAYED),
    ]
    return [*of_fleet, *lists], [epoch, token, MOVE_DUE, *names]
