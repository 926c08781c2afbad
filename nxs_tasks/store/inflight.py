"""What processes hold: taken off a queue, not yet done. Every move checks that it is still held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

from nxs_tasks.errors import MessageError, Stale
from nxs_tasks.model.shelf import PAUSED, QUARANTINE, Shelved
from nxs_tasks.store.connect import explained
from nxs_tasks.store.homes import lasting
from nxs_tasks.store.message import Envelope, read, returned, unwrap
from nxs_tasks.store.shelves import entry_text
from nxs_tasks.store.store import STREAM_LENGTH, FleetStore

log = logging.getLogger(__name__)

#: Messages moved by one call of the script.
BATCH = 200


@dataclass(frozen=True, slots=True)
class Move:
    """Where one held message goes: to a list, or with an entry and a time to a shelf."""

    token: str
    key: str
    text: str
    entry: str = ""
    at: float | None = None
    back: bool = False  # to the end of the line, else to be taken next
    unique: str = ""  # the key of a unique_key to be freed, if it is this task's
    task_id: str = ""
    task: str = ""
    age: int = 0

    def arguments(self) -> tuple[str, ...]:
        """As the script takes them."""
        end = "back" if self.back else "front"
        at = end if self.at is None else repr(self.at)
        about = self.unique, self.task_id, self.task, str(self.age)
        return self.token, self.key, self.text, self.entry, at, *about


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of what a process held."""

    to_queues: int = 0
    to_quarantine: int = 0


class Inflight:
    """The in-flight hashes of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def tokens(self, instance: str, epoch: int) -> list[str]:
        """Tokens of what a process holds."""
        with explained(self._store.url):
            return cast("list[str]", self._store.client.hkeys(self._hash(instance, epoch)))

    def acknowledge(
        self,
        instance: str,
        epoch: int,
        token: str,
        *,
        unique_key: str = "",
        task_id: str = "",
        age: int = 0,
        checkpoint: bool = False,
    ) -> bool:
        """Drop a message whose task has ended; False if it had been taken from this process.

        With `checkpoint` also what the task has saved.
        """
        keys = [self._hash(instance, epoch), self._index(instance, epoch)]
        arguments = [token]
        if unique_key or checkpoint:
            keys.append(self._unique(unique_key))
            arguments += [task_id, str(age)]
        if checkpoint:
            keys.append(self._store.keys.checkpoint(task_id))
        return bool(self._store.call("acknowledge", keys, arguments))

    def shelve(
        self,
        instance: str,
        epoch: int,
        token: str,
        shelf: str,
        entry: Shelved,
        *,
        unique_key: str = "",
        age: int = 0,
    ) -> bool:
        """Put a held message (of that age) on a shelf, and free its `unique_key`.

        False if it had been taken from this process.
        """
        move = self._to_shelf(token, shelf, entry, unique_key, age)
        return self.relocate(instance, epoch, [move]) == 1

    def shelve_paused(self, instance: str, epoch: int, token: str, entry: Shelved) -> bool:
        """Put a message whose task is paused on that shelf; False if it was resumed meanwhile."""
        keys = self._store.keys
        names = [
            self._hash(instance, epoch),
            self._index(instance, epoch),
            keys.paused_tasks(),
            keys.shelf(PAUSED),
            keys.shelf_index(PAUSED),
        ]
        arguments = [token, entry.task, entry_text(entry), repr(entry.at)]
        return bool(self._store.call("shelve_paused", names, arguments))

    def relocate(
        self,
        instance: str,
        epoch: int,
        moves: Iterable[Move],
        *,
        dead: bool = False,
        lost_at: float | None = None,
    ) -> int:
        """Carry out moves; returns how many were still held.

        With `dead` only if the process is no longer part of the fleet; else raises `Stale`. With
        `lost_at` (s) the loss of each is told to the history.
        """
        store = self._store
        keys = [
            store.keys.instance(instance),
            self._hash(instance, epoch),
            self._index(instance, epoch),
            store.keys.holders(),
            store.keys.losses(),
        ]
        how = [instance, epoch, int(dead), "" if lost_at is None else repr(lost_at), STREAM_LENGTH]
        flat = [argument for move in moves for argument in move.arguments()]
        moved = int(store.call("relocate", keys, [*how, *flat]))
        if moved < 0:
            raise Stale(f"{instance} with epoch {epoch} is part of the fleet")
        return moved

    def give_back(
        self,
        instance: str,
        epoch: int,
        home: Callable[[str, str], str],
        *,
        tokens: Iterable[str] | None = None,
        lost_at: float | None = None,
        lost_holders: int = 0,
        dead: bool = False,
        last: bool = False,
        pinned: bool = False,
    ) -> Returned:
        """Put what a process holds (or only `tokens`) back, to be taken next, oldest first.

        With `last` it goes to the end of the line instead, in the same order; `pinned`, nobody else
        takes it from there.

        `home(task, queue)` says to which queue. With `lost_at` (s) the process counts as lost for
        each, and what has lost its holder `lost_holders` times goes to quarantine; so does what is
        no message. Raises `Stale` as `relocate` does.
        """
        entries = self._entries(instance, epoch, tokens)
        waited = self._waited(instance) if lost_at is not None else ()
        if last:
            entries.reverse()
        # Newest first, and so what had not started comes before all others.
        batches: list[tuple[list[tuple[str, str]], float | None]] = []
        if waited:
            batches.append(([e for e in entries if e[0] in waited], None))
        entries = [e for e in entries if e[0] not in waited]
        # Also if there is nothing: who holds nothing is no holder any more.
        batches += [(entries[n : n + BATCH], lost_at) for n in range(0, len(entries) or 1, BATCH)]
        to_queues = to_quarantine = 0
        for batch, at in batches:
            moves = [
                self._way_back(instance, epoch, token, entry, home, at, lost_holders, pinned)
                for token, entry in batch
            ]
            # One call for each kind, so that each can be counted.
            back = [replace(move, back=last) for move in moves if not move.entry]
            aside = [move for move in moves if move.entry]
            to_queues += self.relocate(instance, epoch, back, dead=dead, lost_at=at)
            if aside:
                to_quarantine += self.relocate(instance, epoch, aside, dead=dead, lost_at=at)
        return Returned(to_queues, to_quarantine)

    def _waited(self, instance: str) -> tuple[str, ...]:
        """Tokens of what an instance held and had not started: its end is not their fault."""
        key = self._store.keys.instance(instance)
        with explained(self._store.url):
            found = cast("list[str | None]", self._store.client.hmget(key, ["kept", "ahead"]))
        return tuple(token for token in found if token)

    def _entries(
        self, instance: str, epoch: int, tokens: Iterable[str] | None
    ) -> list[tuple[str, str]]:
        """Token and entry, newest first."""
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hgetall(self._hash(instance, epoch))
            pipe.zrange(self._index(instance, epoch), 0, -1)
            held, order = pipe.execute()
        wanted = set(held) if tokens is None else set(held) & set(tokens)
        place = {token: n for n, token in enumerate(order)}
        newest_first = sorted(wanted, key=lambda token: (place.get(token, -1), token), reverse=True)
        return [(token, held[token]) for token in newest_first]

    def _way_back(
        self,
        instance: str,
        epoch: int,
        token: str,
        entry: str,
        home: Callable[[str, str], str],
        lost_at: float | None,
        lost_holders: int,
        pinned: bool,
    ) -> Move:
        raw, queue = entry, ""
        try:
            raw, queue = unwrap(entry)
            envelope = read(raw)
        except MessageError as error:
            return self._aside(token, raw, queue, str(error), lost_at)
        loss = None
        if lost_at is not None:
            loss = {"instance": instance, "epoch": epoch, "at": lost_at}
        losses = len(envelope.lost) + 1
        if loss is not None and losses >= lost_holders:
            text = returned(raw, lasting(self._store, queue), loss)
            reason = f"lost its holder {losses} times, last {instance}"
            return self._aside(token, text, queue, reason, lost_at, envelope)
        target = home(envelope.task, queue)
        return Move(
            token,
            self._store.wire.list_of(target, envelope.priority),
            returned(raw, target, loss, pinned=pinned),
            task_id=envelope.task_id,
            task=envelope.task,
        )

    def _aside(
        self,
        token: str,
        raw: str,
        queue: str,
        reason: str,
        at: float | None,
        envelope: Envelope | None = None,
    ) -> Move:
        at = self._store.now() if at is None else at
        shelved = Shelved(
            id=token,
            at=at,
            list=self._store.wire.list_of(
                lasting(self._store, queue), envelope.priority if envelope else 0
            ),
            message=raw,
            reason=reason,
            task_id=envelope.task_id if envelope else "",
            task=envelope.task if envelope else "",
        )
        if envelope is None:
            return self._to_shelf(token, QUARANTINE, shelved)
        # What waits for a person must not keep all later ones of its key from running.
        return self._to_shelf(token, QUARANTINE, shelved, envelope.unique_key, envelope.age)

    def _to_shelf(
        self, token: str, shelf: str, entry: Shelved, unique_key: str = "", age: int = 0
    ) -> Move:
        return Move(
            token,
            self._store.keys.shelf(shelf),
            entry_text(entry),
            entry=token,
            at=entry.at,
            unique=self._unique(unique_key),
            task_id=entry.task_id,
            task=entry.task,
            age=age,
        )

    def _unique(self, unique_key: str) -> str:
        return self._store.keys.unique(unique_key) if unique_key else ""

    def _hash(self, instance: str, epoch: int) -> str:
        return self._store.wire.prefix + self._store.keys.inflight(instance, epoch)

    def _index(self, instance: str, epoch: int) -> str:
        return self._store.wire.prefix + self._store.keys.inflight_index(instance, epoch)
