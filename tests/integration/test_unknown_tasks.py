"""Two apps on one queue: whoever takes a task that it does not know passes it on, or parks it."""

from __future__ import annotations

import json
from typing import Any

from nxs_tasks.model.shelf import PARKED
from nxs_tasks.model.state import State
from nxs_tasks.store.shelves import Shelves
from tests.integration.broken_messages import raw
from tests.integration.live import Live

pytest_plugins = ["tests.integration.live_fixtures"]

OTHERS = "tests.integration.other_fleet"


def send(live: Live, task: str, count: int) -> list[str]:
    """Write tasks into the shared queue, as a stock producer does; their ids."""
    ids = [f"{task} {number}" for number in range(count)]
    parts: list[Any] = [[1, 2], {}, None] if task == "shop.add" else [[], {}, None]
    live.store.client.lpush("celery", *(raw(id_, {"task": task}, parts=parts) for id_ in ids))
    return ids


def done(live: Live, ids: list[str]) -> bool:
    found = live.store.client.mget([f"celery-task-meta-{id_}" for id_ in ids])
    results = [json.loads(str(text)) for text in found if text]
    failed: list[Any] = [r for r in results if r["status"] != "SUCCESS"]
    assert not failed, "what Celery does with a task that it does not know"
    return len(results) == len(ids)


def parked(live: Live) -> list[str]:
    return [entry.task for entry in Shelves(live.store).entries(PARKED)]


def test_an_unknown_task_runs_where_it_is_known_and_waits_until_it_is(live: Live) -> None:
    live.env |= {"NXS_LIFECYCLE_PERIOD": "1", "NXS_JOIN_PERIOD": "0.3"}
    live.control_plane()
    other = live.worker("w2@t", 1, "--without-mingle", app=OTHERS)
    live.until_state(State.ACTIVE, "w2@t")
    ids = send(live, "shop.add", 5)
    live.until(lambda: parked(live) == ["shop.add"] * 5, "all of them parked")
    told = {entry.reason for entry in Shelves(live.store).entries(PARKED)}
    assert told == {"no instance knows it"}
    assert live.instance("w2@t").inflight == 0
    assert "no instance knows shop.add" in other.log

    live.worker("w1@t", 1, "--without-mingle")
    live.until(lambda: done(live, ids), "what was parked to run")
    live.until_state(State.ACTIVE, "w1@t", "w2@t")
    ids = send(live, "shop.add", 40) + send(live, "other.look", 40)
    live.until(lambda: done(live, ids), "all to run")
    live.until(lambda: not any(i.inflight for i in live.snapshot().instances), "nothing held")
    assert parked(live) == []
