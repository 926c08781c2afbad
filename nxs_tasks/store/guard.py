"""Whether a task's message is still held by who took it, checked in one step with a write.

The in-flight hash is on the broker's server; what a task commits may be on another one, or in
another database of the same. Only where both are one server can a script do both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nxs_tasks.store import scripts
from nxs_tasks.store.connect import explained
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.token import Token

#: What guard.lua answers when it stops what follows.
TAKEN = "nxs: taken"
#: Names of this very machine that mean the same server.
LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Place:
    """One database of one server, as a client reaches it."""

    server: tuple[str, ...]
    db: int


def place_of(client: Any) -> Place:
    """Where a client of redis-py writes to."""
    pool = client.connection_pool
    known = pool.connection_kwargs
    db = int(known.get("db") or 0)
    service = getattr(pool, "service_name", None)
    if service:
        return Place(("sentinel", str(service), *sorted(_sentinels(pool))), db)
    if known.get("path"):
        return Place(("socket", str(known["path"])), db)
    host, port = str(known.get("host") or "localhost"), str(known.get("port") or 6379)
    return Place(("tcp", LOCAL.get(host, host), port), db)


def _sentinels(pool: Any) -> list[str]:
    options = (s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels)
    return [f"{o.get('host')}:{o.get('port')}" for o in options]


def held_in(store: FleetStore, token: Token) -> str:
    """Key of the in-flight hash that has a token while its message is held."""
    return store.wire.prefix + store.keys.inflight(token.instance, token.epoch)


def is_held(store: FleetStore, token: Token) -> bool:
    """Whether a message is still held under this token; once it is not, it never is again."""
    with explained(store.url):
        return bool(store.client.hexists(held_in(store, token), str(token)))


def guarded(text: str) -> str:
    """A script that is run only while a message is held; see guard.lua for its last arguments."""
    return scripts.text("guard") + text


def is_taken(answer: object) -> bool:
    """Whether a guarded script was stopped."""
    return isinstance(answer, list) and answer in ([TAKEN], [TAKEN.encode()])
