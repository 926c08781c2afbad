"""Quarantine: messages that a person should look at before anything runs them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nxs_tasks.errors import MessageError
from nxs_tasks.model.shelf import QUARANTINE, Shelved
from nxs_tasks.store.message import Envelope, read, without_losses
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.unique import UniqueKeys

log = logging.getLogger(__name__)


class Quarantine:
    """The quarantine of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._shelves = Shelves(store)

    def entries(self) -> Iterator[Shelved]:
        """All that lies there, longest first."""
        return self._shelves.entries(QUARANTINE)

    def find(self, task_id: str) -> list[Shelved]:
        """The entries of a task, or the one with this entry id."""
        return self._shelves.find(QUARANTINE, task_id)

    def release(self, entries: Iterable[Shelved]) -> int:
        """Put entries back into their queues, to be taken next, with a loss count of 0.

        What is no message goes back as it is: whoever takes it puts it here again. One whose
        unique_key another task has got meanwhile stays. Returns how many were released.
        """
        free = [entry for entry in entries if self._has_its_key(entry)]
        return self._shelves.take(QUARANTINE, [_anew(e) for e in free], "front")

    def _has_its_key(self, entry: Shelved) -> bool:
        envelope = envelope_of(entry)
        if envelope is None or not envelope.unique_key:
            return True
        owner = UniqueKeys(self._store).take(envelope.unique_key, envelope.task_id)
        if owner == envelope.task_id:
            return True
        log.warning(
            "task %s stays: task %s has its unique_key %r",
            envelope.task_id,
            owner,
            envelope.unique_key,
        )
        return False

    def drop(self, entries: Iterable[Shelved]) -> int:
        """Remove entries for good; returns how many were still there."""
        chosen = list(entries)
        dropped = self._shelves.take(QUARANTINE, chosen, "drop")
        for entry in chosen:
            self._free_unique_key(entry)
        return dropped

    def _free_unique_key(self, entry: Shelved) -> None:
        envelope = envelope_of(entry)
        if envelope is None or not envelope.unique_key:
            return
        UniqueKeys(self._store).release(envelope.unique_key, envelope.task_id)


def envelope_of(entry: Shelved) -> Envelope | None:
    """What NXS reads of the message; None if it is none."""
    try:
        return read(entry.message)
    except MessageError:
        return None


def _anew(entry: Shelved) -> Shelved:
    try:
        return replace(entry, message=without_losses(entry.message))
    except MessageError:
        return entry
