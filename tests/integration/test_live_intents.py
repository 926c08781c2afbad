"""Cancelling and pausing with real workers that come after, go on, die, and start again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError

from nxs_tasks.model.shelf import PAUSED
from nxs_tasks.model.state import State
from nxs_tasks.store.shelves import Shelves
from tests.conftest import Server
from tests.integration.live import PATIENCE_S, STOCK_APP, Live, Process, shop_app

OWN = "nxs.default/w1@t"


@pytest.fixture
def live(own_server: Server, tmp_path: Path) -> Iterator[Live]:
    """Room for processes on a server that keeps all it has answered."""
    found = Live(own_server, tmp_path)
    yield found
    found.end()


@pytest.fixture
def shop(live: Live) -> Iterator[Any]:
    """The shop with its fleet, in this process."""
    with shop_app(live) as module:
        yield module


def lines(worker: Process, task: str, what: str) -> list[str]:
    """Ids of the tasks of which a worker's log says so, in order."""
    return re.findall(rf"Task {re.escape(task)}\[([0-9a-zA-Z-]+)\] {what}", worker.log)


def holds(live: Live) -> int | None:
    """How many messages w1@t holds; None before it has a record."""
    found = live.snapshot().get("w1@t")
    return None if found is None else found.inflight


def test_cancelled_while_all_workers_are_down_it_never_runs(live: Live, shop: Any) -> None:
    by_id = [shop.add.delay(n, 1) for n in range(20)]
    by_name = [shop.nap.delay(0.0) for _ in range(20)]
    by_group = group(shop.flaky.s(0) for _ in range(20)).apply_async()
    body = chord([shop.add.s(n, 2) for n in range(3)])(shop.total.s())
    shop.fleet.cancel(*by_id, "comes-later", body.parent.results[1].id)
    shop.fleet.cancel(task="shop.nap")
    shop.fleet.cancel(group=by_group)
    live.server.kill()
    live.server.start()
    late = shop.add.apply_async((1, 1), task_id="comes-later")
    worker = live.worker("w1@t", 2)
    assert shop.add.delay(40, 2).get(timeout=PATIENCE_S) == 42, "what is not cancelled runs"
    with pytest.raises(TaskRevokedError):
        late.get(timeout=PATIENCE_S)
    with pytest.raises(Exception, match=r"revoked|cancelled"):
        body.get(timeout=PATIENCE_S)
    cancelled = [*by_id, *by_name, *by_group.results, late]
    assert {r.state for r in cancelled} == {"REVOKED"}
    ran = set(lines(worker, "shop.add", "succeeded"))
    assert not ran & {r.id for r in cancelled}
    assert body.parent.results[1].id not in ran
    assert lines(worker, "shop.nap", "received") == []
    assert lines(worker, "shop.flaky", "received") == []
    assert lines(worker, "shop.total", "succeeded") == []
    live.until(lambda: holds(live) == 0, "all acknowledged")


def test_what_runs_is_not_run_again_by_whoever_comes_after(live: Live, shop: Any) -> None:
    worker = live.worker("w1@t", 1)
    result = shop.nap.delay(600.0)
    live.until(lambda: holds(live) == 1, "the task to run")
    told = live.nxs("cancel", result.id)
    assert f"{result.id} is held by w1@t: goes on" in told.stdout
    assert worker.exit_code is None
    assert result.state == "PENDING", "it goes on"
    worker.kill()
    after = live.worker("w1@t", 1)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE_S)
    assert lines(after, "shop.nap", "succeeded") == []
    assert shop.add.delay(1, 1).get(timeout=PATIENCE_S) == 2, "its slot is free"


def test_what_runs_can_be_ended(live: Live, shop: Any) -> None:
    live.worker("w1@t", 1)
    result = shop.nap.delay(600.0)
    live.until(lambda: holds(live) == 1, "the task to run")
    told = live.nxs("cancel", "--terminate", result.id)
    assert f"{result.id} is held by w1@t: told to end" in told.stdout
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE_S)
    assert shop.add.delay(1, 1).get(timeout=PATIENCE_S) == 2, "its slot is free"
    live.until(lambda: holds(live) == 0, "all acknowledged")


def test_a_cancellation_taken_back_runs(live: Live, shop: Any) -> None:
    results = [shop.add.delay(n, n) for n in range(3)]
    shop.fleet.cancel(task="shop.add")
    live.nxs("cancel", "--undo", results[1].id)
    worker = live.worker("w1@t", 1)
    assert results[1].get(timeout=PATIENCE_S) == 2
    assert lines(worker, "shop.add", "succeeded") == [results[1].id]


def test_a_pause_holds_through_restarts_of_server_and_workers(live: Live, shop: Any) -> None:
    worker = live.worker("w1@t", 1, "-Q", "celery,video")
    assert shop.add.delay(1, 1).get(timeout=PATIENCE_S) == 2
    shop.fleet.pause(task="shop.add", reason="counting")
    shop.fleet.pause(queue="video")
    adds, videos = [shop.add.delay(n, 0) for n in range(6)], [shop.video.delay() for _ in range(3)]

    def waits() -> bool:
        aside = Shelves(live.store).count(PAUSED)
        return (aside, live.store.client.llen("video")) == (6, 3)

    live.until(waits, "all to wait")
    live.server.kill()
    live.server.start()
    assert shop.total.delay([1, 2]).get(timeout=PATIENCE_S) == 3, "the running fleet goes on"
    assert waits(), "and its pauses hold"
    worker.kill()
    later = live.worker("w2@t", 1, "-Q", "celery,video")
    more = shop.add.delay(6, 0)
    assert shop.total.delay([2, 2]).get(timeout=PATIENCE_S) == 4, "a worker that came later works"
    live.until(lambda: Shelves(live.store).count(PAUSED) == 7, "and puts aside")
    assert live.store.client.llen("video") == 3
    assert "7 task(s) wait" in live.nxs("resume", "--task", "shop.add").stdout
    assert [r.get(timeout=PATIENCE_S) for r in [*adds, more]] == list(range(7))
    assert lines(later, "shop.add", "received") == [r.id for r in [*adds, more]], "in order"
    shop.fleet.resume(queue="video")
    assert [v.get(timeout=PATIENCE_S) for v in videos] == ["seen"] * 3
    assert lines(later, "shop.video", "received") == [v.id for v in videos]


def test_a_pause_of_the_shared_queue_is_one_of_the_own_queues_too(live: Live, shop: Any) -> None:
    live.control_plane()
    worker = live.worker("w1@t", 2, "-Q", "celery,video")
    live.until_state(State.ACTIVE, "w1@t")
    shop.fleet.pause(queue="celery")
    results = [shop.add.delay(n, n) for n in range(4)]
    depths = [live.store.client.llen(queue) for queue in (OWN, "celery")]
    assert sum(depths) == 4
    assert depths[0] > 0, "some were placed"
    assert shop.video.delay().get(timeout=PATIENCE_S) == "seen", "it does take work"
    assert [live.store.client.llen(queue) for queue in (OWN, "celery")] == depths
    assert lines(worker, "shop.add", "received") == []
    shop.fleet.resume(queue="celery")
    assert [r.get(timeout=PATIENCE_S) for r in results] == [0, 2, 4, 6]


def test_a_stock_worker_does_not_run_it_either(live: Live, shop: Any) -> None:
    cancelled = [shop.add.delay(n, n) for n in range(5)]
    shop.fleet.cancel(task="shop.add")
    worker = live.worker("stock@t", 1, app=STOCK_APP)
    marker = shop.add.delay(20, 1)
    assert marker.get(timeout=PATIENCE_S) == 21
    assert lines(worker, "shop.add", "received") == [marker.id]
    assert {r.state for r in cancelled} == {"REVOKED"}
