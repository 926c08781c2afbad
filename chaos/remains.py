"""What is left: every message in every key of the broker, whatever NXS or kombu calls it.

And what a submitter has kept on its machine's disk because the broker was away.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from nxs_tasks.store.connect import Client

#: The id and the name of a task in a message of Celery's protocol 2.
_ID = re.compile(r'"id": ?"([^"]+)"')
_TASK = re.compile(r'"task": ?"([^"]+)"')
#: Results, replies and events are no tasks.
_NO_QUEUE = re.compile(r"celery-task-meta-|_kombu\.|.*pidbox|celeryev")
#: Tasks of the control plane expire by themselves and are sent anew.
CONTROL = "nxs.control."
#: Node names, ids and numbers within keys.
_VARYING = re.compile(r"[\w.-]+@[\w.-]+|\b[0-9a-f]{12,}\b|\b[0-9a-f-]{36}\b|\d+")
_KEPT = "SELECT message FROM kept"
#: Entries read at a time.
PAGE = 1000


def remains(client: Client) -> dict[str, tuple[str, ...]]:
    """Place → ids of the user's tasks. Places: `queue …`, `in flight`, `shelf …`."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in client.scan_iter(count=1000):
        if not _NO_QUEUE.match(key):
            for text in _texts(client, key, str(client.type(key))):
                task = _TASK.search(text)
                if task is None or not task[1].startswith(CONTROL):
                    id_ = _ID.search(text)
                    found[_place(key)].append(id_[1] if id_ else f"unreadable: {text[:40]!r}")
    return {place: tuple(ids) for place, ids in sorted(found.items())}


def _texts(client: Client, key: str, kind: str) -> Iterator[str]:
    if kind == "list":
        yield from _of_list(client, key)
    elif kind == "hash":
        values: Iterable[Any] = (value for _, value in client.hscan_iter(key, count=PAGE))
        whole = not _place(key).startswith("queue")
        yield from (value for value in values if whole or '"headers"' in value)


def _of_list(client: Client, key: str) -> Iterator[str]:
    start = 0
    while page := client.lrange(key, start, start + PAGE - 1):
        yield from map(str, page)
        start += PAGE


def _place(key: str) -> str:
    if ":inflight:" in key or key == "unacked":
        return "in flight"
    if ":shelf:" in key:
        return f"shelf {key.rpartition(':')[2]}"
    return f"queue {key.partition(chr(6))[0]}"


def spooled(state: Path) -> dict[str, tuple[str, ...]]:
    """The place `spool` → ids of what lies in the spools of a state directory."""
    ids: list[str] = []
    for path in sorted(state.glob("spool-*.db")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as spool:
            texts = (bytes(row[0]).decode(errors="replace") for row in spool.execute(_KEPT))
            ids += [id_[1] if (id_ := _ID.search(text)) else "unreadable" for text in texts]
    return {"spool": tuple(ids)} if ids else {}


def total(left: Mapping[str, tuple[str, ...]]) -> int:
    """How many messages."""
    return sum(len(ids) for ids in left.values())


def key_families(client: Client) -> dict[str, int]:
    """How many keys of each kind there are: what grows with every kill is a leak."""
    families: dict[str, int] = defaultdict(int)
    for key in client.scan_iter(count=1000):
        families[_VARYING.sub("…", key)] += 1
    return dict(families)
