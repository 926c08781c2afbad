"""Who takes a name gives back at once what the processes before it held, and nothing else."""

from __future__ import annotations

import pytest

from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.message import LOST_HEADER, read
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.displaced import rescue_predecessors
from tests.integration.holding import Process
from tests.integration.messages import OWN, SHARED, contents, message, put, task_ids


def taking(store: FleetStore, name: str, *task_ids: str, queue: str = SHARED) -> Process:
    process = Process(store, name)
    for task_id in task_ids:
        put(store, queue, message(task_id))
        process.take(queue)
    return process


def rescue_before(process: Process) -> None:
    rescue_predecessors(Tenure(process.store, process.instance, process.epoch))


def test_all_that_had_the_name_before_and_no_other(store: FleetStore) -> None:
    taking(store, "w1", "a", "b")
    taking(store, "w1", "c")
    other = taking(store, "w2", "d")
    other.is_now(State.GONE)
    mine = taking(store, "w1", "e")
    rescue_before(mine)
    assert sorted(task_ids(store, SHARED)) == ["a", "b", "c"]
    assert (mine.held_ids(), other.held_ids()) == (["e"], ["d"])
    assert {(h.instance, h.epoch) for h in store.holders()} == {("w1", 3), ("w2", 1)}


def test_each_has_lost_its_holder(store: FleetStore) -> None:
    taking(store, "w1", "a")
    rescue_before(Process(store, "w1"))
    [loss] = read(contents(store, SHARED)[0].decode()).lost
    assert (loss["instance"], loss["epoch"]) == ("w1", 1)
    assert abs(loss["at"] - store.now()) < 60


def test_what_waited_for_the_name_goes_to_all_who_know_it(store: FleetStore) -> None:
    taking(store, "w1", "a", queue=OWN)
    rescue_before(Process(store, "w1"))
    assert task_ids(store, SHARED) == ["a"]


def test_what_killed_it_too_often_is_put_into_quarantine_and_that_is_told(
    store: FleetStore, caplog: pytest.LogCaptureFixture
) -> None:
    twice = [{"instance": "w9", "epoch": n, "at": 1.5} for n in (1, 2)]
    put(store, SHARED, message("poison", **{LOST_HEADER: twice}))  # type: ignore[arg-type]
    Process(store, "w1").take()
    taking(store, "w1", "a")
    rescue_before(Process(store, "w1"))
    assert task_ids(store, SHARED) == ["a"]
    assert [e.task_id for e in Shelves(store).entries(QUARANTINE)] == ["poison"]
    told = sorted(record.getMessage() for record in caplog.records)
    assert [t.split(" of ")[0] + t.split(" back")[1] for t in told] == [
        "0 task(s), 1 put into quarantine",
        "1 task(s), 0 put into quarantine",
    ]


def test_where_there_was_nobody_nothing_is_told(
    store: FleetStore, caplog: pytest.LogCaptureFixture
) -> None:
    rescue_before(Process(store, "w1"))
    rescue_before(Process(store, "w1"))
    assert caplog.records == []
    assert [(h.instance, h.epoch) for h in store.holders()] == [("w1", 2)]
