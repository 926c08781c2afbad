"""Reads the rows of the snapshot script into instances.

A thousand of them each second, so what has not changed is not read again: a profile is known by its
digest, and a heartbeat by its text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from nxs_tasks.model.instance import STEADY, Flapping, Instance, Load, Profile
from nxs_tasks.model.state import State
from nxs_tasks.store.connect import Client, explained
from nxs_tasks.store.keys import Keys

log = logging.getLogger(__name__)

#: What reading a value that somebody else has written may raise.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
#: Quicker than `State(…)`, a thousand times a second.
STATES: dict[str, State] = {state.value: state for state in State}
#: Between the fields of a row.
SEPARATOR = "\x1f"
#: Index of the last field, which is free text.
LAST_FIELD = 29


class Rows:
    """Remembers what it has read before."""

    def __init__(self, client: Client, keys: Keys, url: str) -> None:
        self._client = client
        self._keys = keys
        self._url = url
        self._profiles: dict[str, Profile] = {}
        self._loads: dict[str, tuple[str, Load]] = {}

    def read(
        self, rows: Iterable[str], connections: Mapping[str, int] | None
    ) -> Iterator[Instance]:
        """The instances; a record that is none is passed over: it must not hide all others."""
        fields = [row.split(SEPARATOR, maxsplit=LAST_FIELD) for row in rows]
        self._learn_profiles({row[7] for row in fields if row[7]})
        for row in fields:
            try:
                yield self._instance(row, connections)
            except MALFORMED as error:
                log.error("record %s cannot be read: %r", self._keys.instance(row[0]), error)

    def forget_profiles(self) -> None:
        """Read all anew when they are wanted."""
        self._profiles.clear()

    def _learn_profiles(self, digests: set[str]) -> None:
        unknown = sorted(digests - set(self._profiles))
        if not unknown:
            return
        with explained(self._url):
            texts = cast("list[str | None]", self._client.hmget(self._keys.profiles(), unknown))
        for digest, text in zip(unknown, texts, strict=True):
            try:
                if text is not None:
                    self._profiles[digest] = Profile.from_dict(json.loads(text))
            except MALFORMED as error:
                log.error("profile %s of %s is none: %r", digest, self._keys.profiles(), error)

    def _instance(self, row: list[str], connections: Mapping[str, int] | None) -> Instance:
        (id_, state, epoch, since, beat_at, beats, load, profile, ok, failed) = row[:10]
        stopped, inflight, queued, identity, migrated, received = row[10:16]
        ejected_until, ejections, ejected_why, sick, well, deaf = row[16:22]
        progress_at, cordoned = row[22:24]
        verdict = row[LAST_FIELD]
        name = self._keys.client_name(id_, int(epoch))
        return Instance(
            id=id_,
            state=STATES[state],
            epoch=int(epoch),
            since=float(since),
            beat_at=float(beat_at) if beat_at else None,
            beats=int(beats or 0),
            load=self._load(id_, load),
            profile=self._profiles.get(profile),
            succeeded=int(ok or 0),
            failed=int(failed or 0),
            inflight=int(inflight),
            queued=int(queued),
            connections=None if connections is None else connections.get(name, 0),
            stopped=stopped == "1",
            identity=identity,
            migrated_at=float(migrated) if migrated else None,
            received_at=float(received) if received else None,
            ejected_until=float(ejected_until or 0.0),
            ejected_why=ejected_why,
            ejections=int(ejections or 0),
            sick=int(sick or 0),
            well=int(well or 0),
            deaf=int(deaf or 0),
            progress_at=float(progress_at) if progress_at else None,
            cordoned=cordoned,
            flapping=_flapping(row[24:LAST_FIELD]) if row[24] or row[25] else STEADY,
            verdict=verdict,
        )

    def _load(self, instance_id: str, text: str) -> Load:
        """The load of a record. Most snapshots see the heartbeat that the last one saw."""
        known = self._loads.get(instance_id)
        if known is not None and known[0] == text:
            return known[1]
        load = Load.from_dict(json.loads(text)) if text else Load()
        self._loads[instance_id] = (text, load)
        return load


def _flapping(fields: list[str]) -> Flapping:
    losses, level, level_at, until, why = fields
    return Flapping(
        losses=tuple(map(float, filter(None, losses.split(",")))),
        level=int(level or 0),
        level_at=float(level_at or 0.0),
        until=float(until or 0.0),
        why=why,
    )
