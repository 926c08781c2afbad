"""Who has which unique key: the lock that a task takes when it is submitted, and keeps.

It has no time-out. It belongs to the id of the task, over retries and rescues, and is freed when
the task has ended, or goes to quarantine, or is cancelled.

A task may send a later message of its own id: a retry, or what it is replaced by. That has the key
from then on, so the end of the message before does not free it. In Redis it is the id, and after a
line feed the age of that message: its retries and replacements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from nxs_tasks.store.connect import explained
from nxs_tasks.store.store import FleetStore


class UniqueKeys:
    """The unique keys of one fleet that are taken."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def owner(self, unique_key: str) -> str:
        """Id of the task that has a key; "" if it is free."""
        with explained(self._store.url):
            found = str(self._store.client.get(self._store.keys.unique(unique_key)) or "")
        return found.partition("\n")[0]

    def take(self, unique_key: str, task_id: str) -> str:
        """Give a key to a task if nobody has it; the id of the task that has it then."""
        with explained(self._store.url):
            self._store.client.set(self._store.keys.unique(unique_key), task_id, nx=True)
        return self.owner(unique_key)

    def release(self, unique_key: str, task_id: str) -> bool:
        """Free a key if that task has it."""
        key = self._store.keys.unique(unique_key)
        return bool(self._store.call("release_unique", [key], [task_id]))

    def taken(self) -> Iterator[tuple[str, str]]:
        """Every key that is taken, with the id of its task. Looks at all keys of the database."""
        start = self._store.keys.unique("")
        pattern = start.replace("[", "\\[") + "*"
        with explained(self._store.url):
            found = cast("Iterator[str]", self._store.client.scan_iter(match=pattern, count=500))
            for key in sorted(set(found)):
                unique_key = key.removeprefix(start)
                owner = self.owner(unique_key)
                if owner:
                    yield unique_key, owner
