"""The server by itself: whether it keeps what it accepts, and accepts what it is given."""

from __future__ import annotations

from nxs_tasks.store.connect import explained
from nxs_tasks.store.store import FleetStore


def persistence(store: FleetStore) -> bool | None:
    """Whether the append-only file is on and loaded; None if INFO does not tell.

    False also while the server still reads the file: it answers then and refuses to work.
    """
    with explained(store.url):
        info = store.client.info("persistence")
    if "aof_enabled" not in info:
        return None
    return bool(info["aof_enabled"]) and not info.get("loading")


def try_write(store: FleetStore) -> None:
    """Write a key that is gone at once: a server may answer, and take nothing."""
    with explained(store.url):
        store.client.set(store.keys.trial(), 1, px=1)


def evicts(store: FleetStore) -> str:
    """By which policy the server removes keys when its memory is full; "" if it does not."""
    with explained(store.url):
        memory = store.client.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return policy if memory.get("maxmemory") and policy != "noeviction" else ""
