"""Workers that come and go: graceful shutdown, one name twice, stock Celery beside and after."""

from __future__ import annotations

import signal
from typing import Any

from nxs_tasks.clock import wait_until
from nxs_tasks.model.state import State
from tests.integration.live import APP, PATIENCE_S, STOCK_APP, Live

pytest_plugins = ["tests.integration.live_fixtures"]


def test_a_worker_that_shuts_down_leaves_nothing_behind(live: Live, shop: Any) -> None:
    live.control_plane()
    leaver, stayer = live.worker("w1@t", 1), live.worker("w2@t", 1)
    live.until_state(State.ACTIVE, "w1@t", "w2@t")
    running = [shop.nap.delay(8.0) for _ in range(2)]
    live.until(lambda: all(i.inflight == 1 for i in live.snapshot().instances), "both slots taken")
    # Put behind the running one, as a submitter with an old view of the fleet would.
    waiting = [shop.add.delay(n, 1) for n in range(3)]
    for _ in waiting:
        live.store.client.lmove("celery", "nxs.default/w1@t", "RIGHT", "LEFT")
    live.until(lambda: live.instance("w1@t").queued == 3, "three tasks in its own queue")
    leaver.signal(signal.SIGTERM)
    live.until_state(State.LEAVING, "w1@t")
    assert {c.instance: c.why_not for c in shop.fleet.explain("shop.add").candidates}["w1@t"]
    assert sorted(r.get(timeout=PATIENCE_S) for r in waiting) == [1, 2, 3]
    assert all(r.get(timeout=PATIENCE_S) for r in running), "what runs may finish"
    assert leaver.wait() == 0
    live.until_state(State.GONE, "w1@t")
    history = shop.fleet.runtime.history()
    live.until(
        lambda: len(history.transitions(instance="w1@t")) >= 4, "its transitions in the history"
    )
    path = [(t.source, t.target) for t in reversed(history.transitions(instance="w1@t"))]
    assert path == [
        ("", "JOINING"),
        ("JOINING", "ACTIVE"),
        ("ACTIVE", "LEAVING"),
        ("LEAVING", "GONE"),
    ]
    told = live.nxs("story", "w1@t").stdout
    assert "shutdown signal" in told
    assert stayer.exit_code is None


def test_a_remote_shutdown_is_a_leaving_too(live: Live, shop: Any) -> None:
    """`celery control shutdown`, or the button of Flower: no signal is sent then."""
    live.control_plane()
    worker = live.worker("w1@t", 1)
    live.until_state(State.ACTIVE, "w1@t")
    running = shop.nap.delay(4.0)
    live.until(lambda: live.instance("w1@t").inflight == 1, "its slot taken")
    waiting = shop.add.delay(1, 1)
    live.store.client.lmove("celery", "nxs.default/w1@t", "RIGHT", "LEFT")
    shop.app.control.shutdown(destination=["w1@t"])
    live.until_state(State.LEAVING, "w1@t")
    live.until(lambda: live.store.client.llen("celery") == 1, "the waiting task given back")
    assert worker.wait() == 0
    assert running.get(timeout=PATIENCE_S), "what runs may finish"
    live.until_state(State.GONE, "w1@t")
    live.worker("w2@t", 1)
    assert waiting.get(timeout=PATIENCE_S) == 2


def test_a_second_worker_with_the_same_name_is_refused(live: Live) -> None:
    first = live.worker("w1@t", 1)
    live.until_state(State.JOINING, "w1@t")
    live.until(lambda: live.instance("w1@t").beat_at is not None, "its heartbeat")
    second = live.start("second", "celery", "-A", APP, "worker", "-n", "w1@t", "-c", "1")
    assert second.wait() != 0
    assert "already has the name 'w1@t'" in second.log
    assert "-n NAME@%h" in second.log
    assert "Traceback" not in second.log
    assert first.exit_code is None
    assert live.instance("w1@t").epoch == 1


def test_a_killed_worker_may_start_again_at_once(live: Live, shop: Any) -> None:
    live.worker("w1@t", 1).kill()
    live.worker("w1@t", 1)
    live.until(lambda: shop.add.delay(1, 1).get(timeout=PATIENCE_S) == 2, "work on the new one")


def test_a_worker_waits_for_a_broker_that_is_not_up_yet(live: Live) -> None:
    live.server.kill()
    worker = live.worker("w1@t", 1)
    said = "no Redis or Valkey server answers"
    assert wait_until(lambda: said in worker.log, PATIENCE_S), worker.log
    live.server.start()
    live.until(lambda: live.snapshot().get("w1@t") is not None, "it to join")


def test_heartbeats_resume_after_the_server_was_away(live: Live, shop: Any) -> None:
    live.worker("w1@t", 1)

    def beats() -> int:
        record = live.snapshot().get("w1@t")
        return record.beats if record is not None and record.beat_at is not None else 0

    live.until(lambda: beats() >= 2, "heartbeats")
    live.server.kill()
    live.server.start()
    before = live.instance("w1@t").beat_at or 0.0
    live.until(lambda: (live.instance("w1@t").beat_at or 0.0) > before, "a new heartbeat")
    assert shop.add.delay(2, 2).get(timeout=PATIENCE_S) == 4


def test_a_stock_producer_and_a_stock_worker_share_the_redis(live: Live, shop: Any) -> None:
    """Tasks of the shared queue run on either; a stock process imports nothing of NXS."""
    stock = live.worker("stock@t", 1, app=STOCK_APP)
    live.until(lambda: "stock@t ready" in stock.log, "the stock worker")
    assert shop.add.delay(1, 1).get(timeout=PATIENCE_S) == 2, "NXS submits, stock Celery runs"
    stock.signal(signal.SIGTERM)
    assert stock.wait() == 0
    live.worker("w1@t", 1)
    told = live.command("tests.integration.stock_producer")
    assert told.stdout.strip() == "23", f"stock Celery submits, NXS runs: {told.stderr}"


def test_without_the_line_it_is_a_plain_celery_app_and_waiting_tasks_run(
    live: Live, shop: Any
) -> None:
    live.control_plane()
    worker = live.worker("w1@t", 2)
    live.until_state(State.ACTIVE, "w1@t")
    blockers = [shop.nap.delay(2.0) for _ in range(2)]
    waiting = [shop.add.delay(n, n) for n in range(8)]
    live.until(lambda: live.instance("w1@t").inflight == 2, "both slots taken")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert all(b.get(timeout=PATIENCE_S) for b in blockers)
    live.until_state(State.GONE, "w1@t")
    plain = live.worker("plain@t", 2, app=STOCK_APP)
    assert [r.get(timeout=PATIENCE_S) for r in waiting] == [2 * n for n in range(8)]
    assert "nxs" not in plain.log.split("[tasks]")[1].split("mingle")[0]
