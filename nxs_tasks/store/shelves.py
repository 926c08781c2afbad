"""Shelves: messages that wait out of every queue (`model/shelf.py` says which, and for what)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Literal, cast

from nxs_tasks.errors import MessageError
from nxs_tasks.model.shelf import Shelved
from nxs_tasks.store.connect import explained
from nxs_tasks.store.message import read
from nxs_tasks.store.rows import MALFORMED
from nxs_tasks.store.store import FleetStore

#: Entries read or moved at a time.
PAGE = 500
Where = Literal["front", "back", "drop"]


def entry_text(entry: Shelved) -> str:
    """An entry as it lies in Redis: a line of JSON about the message, then the message itself.

    The message is kept as it is, and not inside the JSON: it need not be text that JSON can hold.
    """
    about = {
        "list": entry.list,
        "reason": entry.reason,
        "task_id": entry.task_id,
        "task": entry.task,
    }
    return json.dumps(about) + "\n" + entry.message


def _entry(id_: str, at: float, text: str) -> Shelved:
    about, _, message = text.partition("\n")
    try:
        known = json.loads(about)
        fields = {name: str(known.get(name, "")) for name in ("list", "reason", "task_id", "task")}
    except MALFORMED:
        fields = {"list": "", "reason": "its entry cannot be read"}
    return Shelved(id=id_, at=at, message=message, **fields)


class Shelves:
    """The shelves of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def count(self, shelf: str) -> int:
        """How many lie there."""
        with explained(self._store.url):
            return int(self._store.client.hlen(self._store.keys.shelf(shelf)))

    def first_at(self, shelf: str) -> float | None:
        """The earliest time on a shelf, s; None if it is empty."""
        with explained(self._store.url):
            index = self._store.keys.shelf_index(shelf)
            found = self._store.client.zrange(index, 0, 0, withscores=True)
        return float(found[0][1]) if found else None

    def entries(self, shelf: str) -> Iterator[Shelved]:
        """All that lies there, earliest first."""
        start = 0
        while page := self._page(shelf, start):
            yield from page
            start += PAGE

    def _page(self, shelf: str, start: int) -> list[Shelved]:
        keys, client = self._store.keys, self._store.client
        with explained(self._store.url):
            ends = start, start + PAGE - 1
            found = client.zrange(keys.shelf_index(shelf), *ends, withscores=True)
            index = cast("list[tuple[str, float]]", found)
            if not index:
                return []
            texts = client.hmget(keys.shelf(shelf), [id_ for id_, _ in index])
        return [
            _entry(str(id_), float(at), cast("str", text) if text is not None else "{}\n")
            for (id_, at), text in zip(index, texts, strict=True)
        ]

    def scan(self, shelf: str) -> Iterator[Shelved]:
        """All that lies there, in no order and without its time (0.0).

        Complete also while others take from the shelf; what is put there meanwhile may be missing.
        """
        entries = self._store.client.hscan_iter(self._store.keys.shelf(shelf), count=PAGE)
        with explained(self._store.url):
            for id_, text in entries:
                yield _entry(str(id_), 0.0, cast("str", text))

    def find(self, shelf: str, task_id: str) -> list[Shelved]:
        """The entries of a task; also found by the id of the entry itself."""
        return [e for e in self.entries(shelf) if task_id in (e.task_id, e.id)]

    def take(
        self, shelf: str, entries: Iterable[Shelved], where: Where, *, queue: str | None = None
    ) -> int:
        """Take entries off and put each at the front or the back of its list, or drop it.

        Their `message` is what is written; `queue` is another one than they came from. Returns how
        many were still there.
        """
        chosen = list(entries)
        # Appended at the front one after the other, the last becomes the next to be taken.
        ordered = chosen[::-1] if where == "front" else chosen
        keys = [self._store.keys.shelf(shelf), self._store.keys.shelf_index(shelf)]
        taken = 0
        for start in range(0, len(ordered), PAGE):
            arguments = [
                argument
                for e in ordered[start : start + PAGE]
                for argument in (e.id, e.message, self._list(e, queue))
            ]
            taken += int(self._store.call("unshelve", keys, [where, *arguments]))
        return taken

    def _list(self, entry: Shelved, queue: str | None) -> str:
        if queue is None and entry.list:
            return entry.list
        try:
            priority = read(entry.message).priority
        except MessageError:
            priority = 0
        return self._store.wire.list_of(queue or self._store.shared_queue, priority)
