"""What waits and what is held, read from kombu's own keys: the truth, not a counter beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from nxs_tasks.errors import MessageError
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.rescue import why_gone
from nxs_tasks.store.connect import explained
from nxs_tasks.store.keys import owner_of
from nxs_tasks.store.message import Envelope, placed_at, read, read_held
from nxs_tasks.store.store import FleetStore

log = logging.getLogger(__name__)

#: Messages read at a time when a queue is searched.
PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A message that a process holds."""

    instance: str
    epoch: int
    since: float | None  # when it was taken, by the server's clock, s
    envelope: Envelope
    token: str = ""

    def for_s(self, now: float) -> float | None:
        """How long it has been held at `now`, by the server's clock, s."""
        return None if self.since is None else max(0.0, now - self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message in a queue; `ahead` others of its priority are taken before it."""

    queue: str
    priority: int
    ahead: int
    envelope: Envelope


def _envelope(raw: str, reader: Any = read) -> Envelope:
    try:
        return cast("Envelope", reader(raw))
    except MessageError as error:
        return Envelope(task_id="", task=str(error), placed=None, redelivered=False)


class Queues:
    """Reads queues and in-flight hashes of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._client = store.client

    def depths(self, queue: str) -> dict[int, int]:
        """Waiting messages by priority."""
        wire = self._store.wire
        with explained(self._store.url):
            pipe = self._client.pipeline(transaction=False)
            for key in wire.queue_keys(queue):
                pipe.llen(key)
            return dict(zip(wire.steps, pipe.execute(), strict=True))

    def oldest_at(self, queue: str) -> float | None:
        """When the oldest waiting message was submitted, s; None if none says so.

        Only a submitter that uses NXS writes the time into the message.
        """
        with explained(self._store.url):
            pipe = self._client.pipeline(transaction=False)
            for key in self._store.wire.queue_keys(queue):
                pipe.lindex(key, -1)
            raws = pipe.execute()
        placed = [_envelope(raw).placed for raw in raws if raw is not None]
        times = [at for p in placed if p is not None and (at := placed_at(p)) is not None]
        return min(times, default=None)

    def held(self, instance_id: str, epoch: int) -> list[Held]:
        """What one process holds, oldest first."""
        keys, prefix = self._store.keys, self._store.wire.prefix
        with explained(self._store.url):
            pipe = self._client.pipeline(transaction=True)
            pipe.hgetall(prefix + keys.inflight(instance_id, epoch))
            pipe.zrange(prefix + keys.inflight_index(instance_id, epoch), 0, -1, withscores=True)
            raws, index = pipe.execute()
        since = {entry[0]: float(entry[1]) for entry in index}
        found = [
            Held(
                instance=instance_id,
                epoch=epoch,
                since=since.get(tag),
                envelope=_envelope(raw, read_held),
                token=tag,
            )
            for tag, raw in raws.items()
        ]
        return sorted(found, key=lambda h: h.since or 0.0)

    def all_held(self) -> Iterator[Held]:
        """What every process holds, of every epoch: also of those that are gone."""
        for holder in self._store.holders():
            yield from self.held(holder.instance, holder.epoch)

    def register_holders(self) -> None:
        """Have every in-flight hash among the holders, also one that somebody else has left.

        Looks at every key of the database.
        """
        found = [f"{instance}:{epoch}" for instance, epoch in self._held_keys()]
        if found:
            with explained(self._store.url):
                self._client.sadd(self._store.keys.holders(), *found)

    def _held_keys(self) -> dict[tuple[str, int], str]:
        """Instance and epoch of every in-flight hash, and its key."""
        base = self._store.wire.prefix + self._store.keys.inflight_base()
        pattern = base.replace("[", "\\[") + "*"
        with explained(self._store.url):
            found = sorted(cast("Iterator[str]", self._client.scan_iter(match=pattern, count=500)))
        keys = {}
        for key in found:
            try:
                keys[owner_of(key)] = key
            except ValueError:
                log.error("key %s is no in-flight hash of a process and is passed over", key)
        return keys

    def orphans(self, snapshot: Snapshot) -> dict[str, int]:
        """Messages held by processes that are gone, by instance: they are about to be rescued."""
        counts: dict[str, int] = {}
        for holder in self._store.holders():
            if why_gone(holder, snapshot):
                counts[holder.instance] = counts.get(holder.instance, 0) + holder.held
        return counts

    def find_waiting(self, queue: str, task_id: str) -> Waiting | None:
        """A task in a queue, or None. Reads the queue in pages, O(depth)."""
        wire = self._store.wire
        for priority, key in zip(wire.steps, wire.queue_keys(queue), strict=True):
            ahead = self._position(key, task_id)
            if ahead is not None:
                return Waiting(queue=queue, priority=priority, ahead=ahead[0], envelope=ahead[1])
        return None

    def _position(self, key: str, task_id: str) -> tuple[int, Envelope] | None:
        end = -1
        while True:
            with explained(self._store.url):
                raws = cast("list[str]", self._client.lrange(key, end - PAGE + 1, end))
            for offset, raw in enumerate(reversed(raws)):
                # The cheap test first: most messages are not the one.
                if task_id in raw and (envelope := _envelope(raw)).task_id == task_id:
                    return -1 - end + offset, envelope
            if len(raws) < PAGE:
                return None
            end -= PAGE
