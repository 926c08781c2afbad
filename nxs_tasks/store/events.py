"""Events on their way from the broker into the history, a stream for each kind.

A transition is written by the same script that makes it, so neither can be without the other.
Reading is at least once: events are deleted after the history has them, and the history ignores
an event id that it already has.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from nxs_tasks.model.record import (
    LossRecord,
    PlacementRecord,
    Record,
    TickRecord,
    TransitionRecord,
)
from nxs_tasks.store.connect import explained
from nxs_tasks.store.rows import MALFORMED
from nxs_tasks.store.store import STREAM_LENGTH, FleetStore

log = logging.getLogger(__name__)

Fields = dict[str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records read, and the stream ids to delete once they are stored. Empty = false."""

    records: tuple[Record, ...]
    ids: tuple[tuple[str, tuple[str, ...]], ...]  # stream key, ids

    def __bool__(self) -> bool:
        return any(ids for _, ids in self.ids)


class Events:
    """The streams of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._client = store.client
        keys = store.keys
        self._readers: dict[str, Callable[[str, Fields], Record]] = {
            keys.transitions(): _transition,
            keys.placements(): _placement,
            keys.losses(): _loss,
            keys.ticks(): _tick,
        }

    def add_placements(self, placements: Iterable[tuple[str, str, Fields]]) -> None:
        """Append placements: (task id, task, fields) of each; see `placement_fields`."""
        with explained(self._store.url):
            pipe = self._client.pipeline(transaction=False)
            for task_id, task, fields in placements:
                pipe.xadd(
                    self._store.keys.placements(),
                    cast("Any", {"task_id": task_id, "task": task, **fields}),
                    maxlen=STREAM_LENGTH,
                    approximate=True,
                )
            pipe.execute()

    def add_tick(self, tick: TickRecord, term: int = 0) -> None:
        """Append one run of a control job, and keep it as the job's last.

        `term` is the highest one of the beats that have sent it.
        """
        fields = {
            "at": repr(tick.at),
            "job": tick.job,
            "lateness_s": repr(tick.lateness_s),
            "took_s": repr(tick.took_s),
            "node": tick.node,
        }
        with explained(self._store.url):
            pipe = self._client.pipeline(transaction=True)
            pipe.xadd(
                self._store.keys.ticks(),
                cast("Any", fields),
                maxlen=STREAM_LENGTH,
                approximate=True,
            )
            last = json.dumps({**fields, "term": str(term)})
            pipe.hset(self._store.keys.last_ticks(), tick.job, last)
            pipe.execute()

    def last_ticks(self) -> dict[str, TickRecord]:
        """The last run of each control job."""
        return {job: tick for job, (tick, _) in self.last_ticks_and_terms().items()}

    def last_ticks_and_terms(self) -> dict[str, tuple[TickRecord, int]]:
        """The last run of each control job, and the highest term of the beats that sent it."""
        key = self._store.keys.last_ticks()
        with explained(self._store.url):
            found = cast("dict[str, str]", self._client.hgetall(key))
        ticks = {}
        for job, text in found.items():
            try:
                fields = json.loads(text)
                ticks[job] = _tick("", fields), int(fields.get("term", 0))
            except (*MALFORMED, AttributeError) as error:
                _tell_malformed(key, job, error)
        return ticks

    def read(self, count: int = 1000) -> Batch:
        """The oldest `count` events of each stream."""
        records: list[Record] = []
        ids: list[tuple[str, tuple[str, ...]]] = []
        for key, reader in self._readers.items():
            with explained(self._store.url):
                entries = cast("list[tuple[str, Fields]]", self._client.xrange(key, count=count))
            records += [r for id_, fields in entries if (r := _read(reader, key, id_, fields))]
            ids.append((key, tuple(id_ for id_, _ in entries)))
        return Batch(tuple(records), tuple(ids))

    def done(self, batch: Batch) -> None:
        """Delete what the history has stored."""
        with explained(self._store.url):
            for key, ids in batch.ids:
                if ids:
                    self._client.xdel(key, *ids)

    def pending_transitions(self, instance_id: str | None = None) -> list[TransitionRecord]:
        """Transitions that are not yet in the history, oldest first."""
        key = self._store.keys.transitions()
        with explained(self._store.url):
            entries = cast("list[tuple[str, Fields]]", self._client.xrange(key))
        found = [_read(_transition, key, id_, fields) for id_, fields in entries]
        return [
            t
            for t in found
            if isinstance(t, TransitionRecord) and instance_id in (None, t.instance)
        ]


def _read(reader: Callable[[str, T], Record], key: str, id_: str, fields: T) -> Record | None:
    """One record, or None for an entry that is none; it is named in the log and passed over."""
    try:
        return reader(id_, fields)
    except MALFORMED as error:
        _tell_malformed(key, id_, error)
        return None


def _tell_malformed(key: str, id_: str, error: Exception) -> None:
    log.error("entry %s of %s is no event of NXS and is passed over: %r", id_, key, error)


def _transition(id_: str, fields: Fields) -> TransitionRecord:
    return TransitionRecord(
        event_id=f"transition:{id_}",
        at=float(fields["at"]),
        instance=fields["instance"],
        epoch=int(fields["epoch"]),
        source=fields["source"],
        target=fields["target"],
        event=fields["event"],
        reason=fields["reason"],
        evidence=json.loads(fields["evidence"]),
    )


def _placement(id_: str, fields: Fields) -> PlacementRecord:
    return PlacementRecord(
        event_id=f"placement:{id_}",
        at=float(fields["at"]),
        task_id=fields["task_id"],
        task=fields["task"],
        instance=fields["instance"] or None,
        score=float(fields["score"]) if fields["score"] else None,
        reason=fields["reason"],
        candidates=tuple(json.loads(fields["candidates"])),
    )


def _loss(id_: str, fields: Fields) -> LossRecord:
    return LossRecord(
        event_id=f"loss:{id_}",
        at=float(fields["at"]),
        task_id=fields["task_id"],
        task=fields["task"],
        instance=fields["instance"],
        epoch=int(fields["epoch"]),
        became=fields["became"],
    )


def _tick(id_: str, fields: Fields) -> TickRecord:
    return TickRecord(
        event_id=f"tick:{id_}",
        at=float(fields["at"]),
        job=fields["job"],
        lateness_s=float(fields["lateness_s"]),
        took_s=float(fields["took_s"]),
        node=fields["node"],
    )
