"""What `claim.lua` is given. The transport sends it, on kombu's own connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nxs_tasks.model.shelf import DELAYED
from nxs_tasks.store.store import FleetStore

#: Delayed messages that one claim moves when they are due.
MOVE_DUE = 100


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a process would rather take, and where else it may take from.

    `warm` are affinity keys, as JSON texts; the oldest message is passed over for them for up to
    `longest_s`. `others` are queues of other instances, looked into last; of `names` there (None =
    all tasks). `ahead` is how many slots it has, if all are taken and it takes one ahead.
    """

    warm: tuple[str, ...] = ()
    longest_s: float = 0.0
    others: tuple[str, ...] = ()
    names: frozenset[str] | None = None
    ahead: int = 0

    def arguments(self, lists: int) -> list[Any]:
        """For the script; `lists` is how many the other queues have."""
        warm = json.dumps(self.warm) if self.warm else ""
        names = "" if self.names is None else json.dumps(sorted(self.names))
        return [warm, self.longest_s, lists, names]


NONE = Wishes()


def keys_and_arguments(
    store: FleetStore,
    instance: str,
    epoch: int,
    token: str,
    queues: Sequence[str],
    wishes: Wishes = NONE,
) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV for one delivery to a process that looks into `queues` in this order.

    All lists of the highest priority come first, then all of the next. An own queue is paused by
    the name of the shared queue: what waits there would else have waited here.
    """
    keys, wire = store.keys, store.wire
    lists, names = _lists(store, queues)
    others, their_names = _lists(store, wishes.others)
    of_fleet = [
        keys.instance(instance),
        wire.prefix + keys.inflight(instance, epoch),
        wire.prefix + keys.inflight_index(instance, epoch),
        keys.paused_queues(),
        keys.cancelled(),
        keys.paused_tasks(),
        keys.shelf_index(DELAYED),
        keys.shelf(DELAYED),
        keys.waiting(),
        keys.members(),
    ]
    how = [epoch, token, MOVE_DUE, *wishes.arguments(len(others)), instance, wishes.ahead]
    return [*of_fleet, *lists, *others], [*how, *names, *their_names]


def _lists(store: FleetStore, queues: Iterable[str]) -> tuple[list[str], list[str]]:
    """The lists of queues, and for each the queue and the name it is paused by."""
    own, wire = store.keys.own_queue(""), store.wire
    lists, names = [], []
    for step in range(len(wire.steps)):
        for queue in queues:
            lists.append(wire.queue_keys(queue)[step])
            names += [queue, store.shared_queue if queue.startswith(own) else queue]
    return lists, names
