"""The job that levels lines, and `nxs rebalance`, against a real server."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from nxs_tasks import Fleet
from nxs_tasks.cli.main import run
from nxs_tasks.control.jobs import JOBS, run_job
from nxs_tasks.control.pausing import pause, resume
from nxs_tasks.control.rebalancing import rebalance
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.events import Events
from tests.conftest import MakeApp, add_instance, set_back
from tests.integration.messages import OWN, message, put, task_ids
from tests.integration.test_migration import TO, ids, placed


class Shop:
    """A fleet of two, w1 with a long line and w2 idle; and its command line."""

    def __init__(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet = fleet
        self.store: FleetStore = fleet.runtime.store()
        self.code = 0
        self._capsys = capsys
        for name in ("w1", "w2"):
            add_instance(self.store, name, running=0, mean_s=1.0)
        put(self.store, OWN, *(placed(n) for n in range(12)))

    def nxs(self, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run(arguments, self.fleet.app)
        self.code = int(ended.value.code or 0)
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.nxs(*arguments, "--json"))


@pytest.fixture
def shop(
    make_app: MakeApp,
    url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:
    monkeypatch.setenv("COLUMNS", "120")
    return Shop(make_app(url), capsys)


def test_the_job_moves_what_waits(shop: Shop) -> None:
    run_job(shop.fleet.runtime, "rebalance", "control@t")
    # Two free slots at either: what w1 is about to start stays.
    assert task_ids(shop.store, TO) == ids(*range(2, 8))
    assert task_ids(shop.store, OWN) == ids(0, 1, *range(8, 12))
    [tick] = Events(shop.store).last_ticks().items()
    assert tick[0] == "rebalance"


def test_it_is_due_each_30_s() -> None:
    assert JOBS["rebalance"].period_setting == "rebalance_period"


def test_a_refused_move_is_logged_with_its_reason(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.store.client.delete(OWN)
    put(shop.store, OWN, *(message(f"p{n}") for n in range(12)))
    with caplog.at_level(logging.INFO, logger="nxs_tasks"):
        [outcome] = rebalance(shop.fleet.runtime)
    assert not outcome.applied
    assert outcome.detail.endswith("(left: 10 named this queue themselves)")
    [text] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert text.startswith("w1 → w2, up to 6 task(s): not moved, nothing could be moved: ")
    assert "10 named this queue themselves" in text


def test_nothing_moves_while_the_shared_queue_is_paused(shop: Shop) -> None:
    pause(shop.fleet.runtime, "queue", "celery")
    assert rebalance(shop.fleet.runtime) == []
    assert "nothing would be moved: celery is paused" in shop.nxs("rebalance", "--plan")
    assert shop.json("rebalance", "--plan")["moves"] == []
    resume(shop.fleet.runtime, "queue", "celery")
    assert len(rebalance(shop.fleet.runtime)) == 1


class TestCommand:
    def test_a_plan_moves_nothing(self, shop: Shop) -> None:
        add_instance(shop.store, "w3", State.LEAVING)
        told = " ".join(shop.nxs("rebalance", "--plan").split())
        assert "FROM TO TASKS WHY" in told
        assert "w1 w2 6 12 task(s) wait for w1, w2 is idle" in told
        assert "w3 stays as it is: is LEAVING" in told
        assert shop.code == 0
        assert len(task_ids(shop.store, OWN)) == 12
        assert shop.store.client.hget(shop.store.keys.instance("w1"), "migrated_at") is None

    def test_a_plan_as_json(self, shop: Shop) -> None:
        told = shop.json("rebalance", "--plan")
        [move] = told["moves"]
        assert (move["source"], move["target"], move["tasks"], move["after"]) == ("w1", "w2", 6, 2)
        assert move["evidence"]["source_waiting"] == 12
        assert (move["source_state"], move["source_epoch"]) == ("ACTIVE", 1)
        assert "knows" not in move
        assert (told["stays"], told["nothing"]) == ([], "")

    def test_now(self, shop: Shop) -> None:
        assert shop.nxs("rebalance") == "w1 → w2: 6 task(s) moved\n"
        assert shop.code == 0
        assert "nothing to move" in shop.nxs("rebalance")
        assert shop.code == 0
        told = shop.nxs("rebalance", "--plan")
        assert "nothing would be moved" in told
        assert "w1 stays as it is: took part in a migration 0 s ago: one in 60 s" in told

    def test_now_as_json(self, shop: Shop) -> None:
        [told] = shop.json("rebalance")
        assert (told["applied"], told["detail"]) == (True, "6 task(s) moved")
        assert (told["source"], told["target"], told["tasks"]) == ("w1", "w2", 6)

    def test_a_refusal_is_an_exit_code(self, shop: Shop) -> None:
        shop.store.client.delete(OWN)
        put(shop.store, OWN, *(message(f"p{n}") for n in range(12)))
        assert "w1 → w2: not moved, nothing could be moved" in shop.nxs("rebalance")
        assert shop.code == 1

    def test_the_story_of_a_task_says_that_it_was_moved(self, shop: Shop) -> None:
        shop.nxs("rebalance")
        told = shop.nxs("story", "t3")
        assert "moved from w1, whose line was long" in told
        assert f"waits in {TO}" in told


def test_a_moved_task_is_not_moved_again_in_its_time(shop: Shop) -> None:
    """Whatever the plan says: who received is far longer than everybody else."""
    shop.nxs("rebalance")
    shop.store.client.delete(OWN)
    for name in ("w1", "w2"):
        set_back(shop.store, name, "migrated_at", 60.0)
        set_back(shop.store, name, "received_at", 600.0)
    told = shop.nxs("rebalance")
    assert "w2 → w1: not moved" in told
    assert "moved lately" in told
    assert task_ids(shop.store, TO) == ids(*range(2, 8))
