"""A real worker that is sent every broken message between good tasks: it does not blink."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.store import connect
from nxs_tasks.store.shelves import Shelves
from tests.integration.broken_messages import BROKEN, ODD, raw
from tests.integration.live import Live, Process

pytest_plugins = ["tests.integration.live_fixtures"]

RESULT = "celery-task-meta-"


def results(live: Live, ids: list[str]) -> dict[str, Any]:
    """What the tasks returned, of those that are done."""
    found = live.store.client.mget([RESULT + id_ for id_ in ids])
    told = {id_: json.loads(str(text)) for id_, text in zip(ids, found, strict=True) if text}
    failed = {id_: one for id_, one in told.items() if one["status"] != "SUCCESS"}
    assert not failed
    return {id_: one["result"] for id_, one in told.items()}


def started(live: Live, pool: str) -> Process:
    worker = live.worker("w1@t", 2, "-P", pool, "--without-mingle")
    live.until(lambda: "w1@t ready" in worker.log, "a worker")
    return worker


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_broken_messages_harm_nobody(live: Live, pool: str) -> None:
    worker = started(live, pool)
    connected = {c["id"] for c in live.store.client.client_list() if "w1@t" in c["name"]}
    good, sent = [], []
    queues = ("celery", live.store.keys.own_queue("w1@t"))
    for number, data in enumerate([*(data for data, _ in BROKEN.values()), *ODD.values()]):
        for queue in queues:
            good.append(f"good {number} {queue}")
            sent.append((queue, data))
            sent.append((queue, raw(good[-1])))
    with connect(live.server.url) as client:
        pipe = client.pipeline(transaction=False)
        for queue, data in sent:
            pipe.lpush(queue, data)
        pipe.execute()
    wanted = [*good, *ODD]
    live.until(lambda: len(results(live, wanted)) == len(wanted), "all that can run")
    assert set(results(live, wanted).values()) == {3}
    live.until(lambda: live.instance("w1@t").inflight == 0, "nothing held")
    kept = list(Shelves(live.store).entries(QUARANTINE))
    assert sorted(e.message.encode("utf-8", "surrogateescape") for e in kept) == sorted(
        data for data, _ in BROKEN.values() for _ in queues
    )
    assert all(entry.reason for entry in kept)
    assert worker.exit_code is None
    now = {c["id"] for c in live.store.client.client_list() if "w1@t" in c["name"]}
    assert connected <= now, "it has kept its connections"
    assert "Traceback" not in worker.log
    worker.signal(15)
    assert worker.wait() == 0
