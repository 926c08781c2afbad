"""Tasks that are not due yet wait in Redis: none early, none twice, none in a worker's memory."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from nxs_tasks.clock import SYSTEM
from nxs_tasks.model.shelf import DELAYED
from nxs_tasks.store.shelves import Shelves
from tests.integration.ledger import Ledger

pytest_plugins = ["tests.integration.ledger_fixtures"]

TASKS = int(os.environ.get("DELAYED_TASKS", "600"))
#: What a time may lose on its way through text and floating point, s.
ROUNDING_S = 2e-6


def submit(ledger: Ledger, count: int, first_s: float, last_s: float) -> dict[str, float]:
    """Submit tasks that become due within a span; the due time of each, s."""
    due = {}
    for _ in range(count):
        at = round(SYSTEM.now() + random.uniform(first_s, last_s), 6)
        eta = datetime.fromtimestamp(at, UTC)
        due[ledger.tasks.run.apply_async(eta=eta, ignore_result=True).id] = at
    return due


def assert_each_ran_once_and_in_time(ledger: Ledger, due: dict[str, float]) -> None:
    assert ledger.times() == dict.fromkeys(due, 1)
    early = {e.task_id: due[e.task_id] - e.at for e in ledger.entries("start")}
    assert max(early.values()) <= ROUNDING_S


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_none_is_early_none_is_twice_and_none_in_memory(ledger: Ledger, pool: str) -> None:
    worker = ledger.worker("w1@t", 2, "-P", pool)
    shelves = Shelves(ledger.live.store)
    due = submit(ledger, TASKS, 1.5, 3.0)
    most_waiting = 0

    def all_ran() -> bool:
        nonlocal most_waiting
        loads = [i.load.waiting or 0 for i in ledger.live.snapshot().instances]
        most_waiting = max(most_waiting, *loads)
        return ledger.client.llen("ran") >= 2 * len(due)

    ledger.live.until(lambda: not ledger.waiting(), "all of them taken")
    # In the order in which a task passes: one that goes on meanwhile is not missed.
    assert shelves.count(DELAYED) + ledger.held() + len(ledger.times()) >= len(due)
    scheduled = ledger.tasks.app.control.inspect(timeout=10.0, limit=1).scheduled()
    assert scheduled == {"w1@t": []}
    ledger.live.until(all_ran, "all to run")
    assert most_waiting == 0
    assert_each_ran_once_and_in_time(ledger, due)
    ledger.until_idle()
    assert shelves.count(DELAYED) == 0
    assert worker.exit_code is None


def test_a_restart_of_everything_loses_none(ledger: Ledger) -> None:
    first = ledger.worker("w1@t", 2, "-P", "threads")
    shelves = Shelves(ledger.live.store)
    due = submit(ledger, 200, 4.0, 5.0)
    ledger.live.until(lambda: shelves.count(DELAYED) == len(due), "all of them on the shelf")
    first.kill()
    ledger.live.server.kill()
    ledger.live.server.start()
    assert ledger.times() == {}, "else the machine was too slow for this test"
    ledger.worker("w1@t", 2, "-P", "threads")
    ledger.live.until(lambda: ledger.client.llen("ran") >= 2 * len(due), "all to run")
    assert_each_ran_once_and_in_time(ledger, due)
    ledger.until_idle()


def test_a_retry_with_a_countdown_waits_on_the_shelf_too(ledger: Ledger) -> None:
    ledger.worker("w1@t", 2)
    results = [ledger.tasks.again.delay(2, 0.4) for _ in range(20)]
    shelves = Shelves(ledger.live.store)
    ledger.live.until(lambda: shelves.count(DELAYED) > 0, "a retry on the shelf")
    ledger.live.until(lambda: all(r.ready() for r in results), "all to be done")
    assert {r.get() for r in results} == {2}
    tries: dict[str, list[float]] = {}
    for entry in ledger.entries("try"):
        tries.setdefault(entry.task_id, []).append(entry.at)
    assert {len(times) for times in tries.values()} == {3}
    gaps = [b - a for times in tries.values() for a, b in pairwise(times)]
    assert min(gaps) >= 0.4
    assert ledger.live.instance("w1@t").load.waiting in (0, None)
    ledger.until_idle()
