"""Messages as stock producers write them, put into queues by hand and read from there."""

from __future__ import annotations

import json
from typing import Any

from nxs_tasks.store import FleetStore, Keys

#: The own queue of the instance w1, and the shared one.
OWN, SHARED = Keys("default").own_queue("w1"), "celery"
#: What may lie in a queue and is no message of kombu.
GARBAGE = [
    b"",
    b"not JSON",
    b"\xff\xfe\x00\x80 no text",
    b"null",
    b'["a", "b", "c"]',
    b'{"headers": {}}',
    b'{"headers": 1, "properties": {}}',
    b'{"body": "caf\xe9"}',
    "ünïcode \u2028".encode(),
]


def message(task_id: str, queue: str = OWN, *, priority: int = 0, **headers: Any) -> str:
    """As kombu writes it."""
    return json.dumps(
        {
            "body": "W1tdLCB7fSwge31d",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "shop.pay", "id": task_id, **headers},
            "properties": {
                "correlation_id": task_id,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "delivery_tag": f"tag-{task_id}",
                "priority": priority,
            },
        }
    )


def put(store: FleetStore, queue: str, *raws: str | bytes, priority: int = 0) -> None:
    """Publish, the first first."""
    key = dict(zip(store.wire.steps, store.wire.queue_keys(queue), strict=True))[priority]
    for raw in raws:
        store.client.lpush(key, raw)


def contents(store: FleetStore, queue: str) -> list[bytes]:
    """All messages of a queue in the order in which a worker takes them, as bytes."""
    raws: list[Any] = []
    for key in store.wire.queue_keys(queue):
        raws += reversed(store.client.lrange(key, 0, -1))
    return [raw.encode("utf-8", "surrogateescape") for raw in raws]


def task_ids(store: FleetStore, queue: str) -> list[str]:
    return [json.loads(raw)["headers"]["id"] for raw in contents(store, queue)]
