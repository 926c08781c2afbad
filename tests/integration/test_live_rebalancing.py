"""Real workers: a line behind a long task goes to who joins, and each task runs once."""

from __future__ import annotations

from typing import Any

from celery import Celery

from nxs_tasks.model.state import State
from tests.conftest import JSON
from tests.integration.live import PATIENCE_S, Live

pytest_plugins = ["tests.integration.live_fixtures"]
#: Half of them of another priority.
COUNT = 60


def test_who_joins_gets_half_of_a_line(live: Live) -> None:
    url = live.server.url
    stock = Celery("stock", broker=url, backend=url, set_as_current=False)
    stock.conf.update(JSON)
    try:
        move_a_line(live, stock)
    finally:
        stock.close()


def move_a_line(live: Live, stock: Celery) -> None:
    # Else who joins has taken it all before it can be moved.
    live.env["NXS_STEAL_PERIOD"] = "3600"
    live.control_plane()
    live.worker("w1@t", 1)
    live.until_state(State.ACTIVE, "w1@t")
    own = live.store.keys.own_queue("w1@t")

    def send(name: str, *args: Any, **options: Any) -> Any:
        # Only who has no fleet can name the queue of an instance.
        return stock.send_task(name, args, queue=own, **options)

    def placed(number: int) -> dict[str, Any]:
        return {"nxs": {"to": "w1@t", "score": 0.9, "why": "by hand", "at": float(number)}}

    send("shop.nap", 20.0)
    live.until(lambda: live.instance("w1@t").inflight == 1, "w1 works")
    results = [
        send("shop.add", n, n, headers=placed(n), priority=3 * (n % 2)) for n in range(COUNT)
    ]
    pinned = send("shop.add", 1, 2)
    live.worker("w2@t", 1)
    live.until_state(State.ACTIVE, "w2@t")
    # The control plane does it each 30 s. Who is second finds both at rest.
    told = live.nxs("rebalance")
    assert told.returncode == 0, told.stderr
    live.until(lambda: live.instance("w2@t").received_at is not None, "a migration")
    live.until(lambda: live.instance("w2@t").succeeded >= COUNT // 2, "w2 has run what it got")
    assert [r.get(timeout=PATIENCE_S) for r in results] == [2 * n for n in range(COUNT)]
    assert pinned.get(timeout=PATIENCE_S) == 3

    def done() -> int:
        return sum(live.instance(name).succeeded for name in ("w1@t", "w2@t"))

    live.until(lambda: done() == COUNT + 2, "each is counted")
    live.until(lambda: not any(i.queued or i.inflight for i in live.snapshot().instances), "rest")
    assert done() == COUNT + 2, "none ran twice"
