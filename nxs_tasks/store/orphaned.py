"""Locks that a process held outside of its tasks, when it is no more.

What a task of it held needs no help: such a lock is free as soon as its message is given to others.
"""

from __future__ import annotations

from nxs_tasks.store.connect import explained
from nxs_tasks.store.locks import KNOWN_FOR_MS
from nxs_tasks.store.store import FleetStore

#: Keys that the server looks at in one step of the search.
PAGE = 1000


def free_locks(store: FleetStore, identity: str) -> list[str]:
    """Free the locks whose owner is a process of that identity; their names.

    There is no list of locks, so every key is looked at; it is done once for an eviction. Raises
    `BrokerError`.
    """
    if not identity:
        return []
    begin = store.keys.lock("")
    with explained(store.url):
        found = sorted(store.client.scan_iter(match=f"{_literally(begin)}*", count=PAGE))
    freed = [k for k in found if store.call("free_lock", [k], [f"{identity}/", KNOWN_FOR_MS])]
    return [key.removeprefix(begin) for key in freed]


def _literally(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in text)
