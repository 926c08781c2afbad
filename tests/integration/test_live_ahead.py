"""Real workers: what was taken ahead starts next, or goes to others if what runs hangs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks.model.state import State
from nxs_tasks.store.inflight import Inflight
from tests.integration.live import PATIENCE_S, Live, shop_app

pytest_plugins = ["tests.integration.live_fixtures"]
APP = "tests.integration.wants_fleet"
#: Longer than any test here lasts, s.
HANGS_S = 600.0


@pytest.fixture
def shop(live: Live) -> Iterator[Any]:
    live.control_plane()
    with shop_app(live) as module:
        yield module


def send(shop: Any, *seconds: float) -> list[str]:
    """Tasks, all in one write: who takes the first finds the others behind it."""
    return list(shop.fleet.submit_many("wants.nothing", [(s,) for s in seconds]).ids)


def where(shop: Any, ids: list[str]) -> list[str]:
    return [shop.app.AsyncResult(i).get(timeout=PATIENCE_S)[0] for i in ids]


def held(live: Live, name: str) -> int:
    return len(Inflight(live.store).tokens(name, live.instance(name).epoch))


def start(live: Live, name: str, *options: str) -> Any:
    worker = live.worker(name, 1, *options, app=APP)
    live.until_state(State.ACTIVE, name)
    return worker


def waits(live: Live) -> int:
    return int(live.store.client.llen(live.store.shared_queue))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_all_run_once(live: Live, shop: Any, pool: str) -> None:
    start(live, "w1@t", "-P", pool)
    ids = send(shop, *[0.01] * 60)
    assert where(shop, ids) == ["w1@t"] * 60
    live.until(lambda: held(live, "w1@t") == 0, "all to be told")


def test_what_waits_behind_a_task_that_hangs_runs_elsewhere(live: Live, shop: Any) -> None:
    start(live, "w1@t")
    where(shop, send(shop, *[0.01] * 5))
    ids = send(shop, 0.3, HANGS_S, 0.01, 0.01, 0.01)
    live.until(lambda: held(live, "w1@t") == 2 and waits(live) == 2, "one taken ahead")
    live.until(lambda: held(live, "w1@t") == 1 and waits(live) == 3, "it to be given back")
    start(live, "w2@t")
    assert where(shop, ids[2:]) == ["w2@t"] * 3
    assert held(live, "w1@t") == 1, "the one that hangs"


def test_a_worker_that_leaves_gives_it_back_at_once(live: Live, shop: Any) -> None:
    live.env["NXS_CLAIM_AHEAD"] = str(PATIENCE_S)
    worker = start(live, "w1@t")
    where(shop, send(shop, *[0.01] * 5))
    send(shop, HANGS_S, 0.01, 0.01, 0.01)
    live.until(lambda: held(live, "w1@t") == 2 and waits(live) == 2, "one taken ahead")
    worker.signal(signal.SIGTERM)
    live.until(lambda: held(live, "w1@t") == 1 and waits(live) == 3, "it to be given back")
    assert worker.exit_code is None, "what runs goes on"


def test_what_a_killed_worker_had_taken_ahead_runs_elsewhere(live: Live, shop: Any) -> None:
    live.env["NXS_CLAIM_AHEAD"] = str(PATIENCE_S)
    worker = start(live, "w1@t")
    where(shop, send(shop, *[0.01] * 5))
    ids = send(shop, 1.0, 0.01, 0.01, 0.01)
    live.until(lambda: held(live, "w1@t") == 2 and waits(live) == 2, "one taken ahead")
    worker.kill_with_children()
    start(live, "w2@t")
    assert where(shop, ids) == ["w2@t"] * 4
