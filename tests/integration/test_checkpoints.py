"""Checkpoints as Redis has them: who may save, who may ask, and what is left at the end."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nxs_tasks.errors import IntentRefused, Stale
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.checkpoints import Checkpoints, Run
from nxs_tasks.store.homes import homes
from nxs_tasks.store.message import read
from nxs_tasks.store.token import Token, parse
from tests.conftest import add_instance
from tests.integration.holding import Process, a_holder, rescue
from tests.integration.messages import SHARED, message, put

KEPT_MS = 60_000
TASK = "shop.pay"


class Work:
    """A task that a process has taken, and what it does with its checkpoint."""

    def __init__(self, process: Process, task_id: str = "t1") -> None:
        found = parse(process.tokens()[0])
        assert found is not None
        self.token: Token = found
        self.task_id = task_id
        self.checkpoints = Checkpoints(process.store)

    def open(self, task: str = TASK) -> str:
        return self.checkpoints.open(self.task_id, task, self.token, KEPT_MS)

    def save(self, state: str) -> str | None:
        return self.checkpoints.save(self.task_id, TASK, self.token, state, KEPT_MS)

    def ask(self, to: str = "") -> bool:
        run = self.checkpoints.find_run(self.task_id)
        assert run is not None
        return self.checkpoints.ask(self.task_id, run, to, "ann@host")


def taken_by(process: Process) -> Work:
    """The task, taken from the queue by another process."""
    process.take()
    return Work(process)


def fields(store: FleetStore) -> dict[str, str]:
    return cast("dict[str, str]", store.client.hgetall(store.keys.checkpoint("t1")))


class TestState:
    def test_is_nothing_at_first_and_then_what_was_saved_last(self, store: FleetStore) -> None:
        work = Work(a_holder(store, "t1"))
        assert work.open() == ""
        assert work.save('{"n":1}') is None
        assert work.save('{"n":2}') is None
        assert work.open() == '{"n":2}'

    def test_is_kept_for_a_time(self, store: FleetStore) -> None:
        work = Work(a_holder(store, "t1"))
        work.open()
        assert 0 < store.client.pttl(store.keys.checkpoint("t1")) <= KEPT_MS
        store.client.persist(store.keys.checkpoint("t1"))
        work.save("1")
        assert 0 < store.client.pttl(store.keys.checkpoint("t1")) <= KEPT_MS

    def test_is_refused_to_a_late_copy(self, store: FleetStore) -> None:
        first = a_holder(store, "t1")
        late = Work(first)
        late.open()
        late.save('"first"')
        first.is_now(State.GONE)
        rescue(first)
        now = taken_by(Process(store, "w2"))
        with pytest.raises(Stale, match="the message of t1 was taken from w1"):
            late.save('"late"')
        with pytest.raises(Stale):
            late.open()
        assert now.open() == '"first"'
        now.save('"second"')
        with pytest.raises(Stale):
            late.save('"later"')
        assert fields(store)["state"] == '"second"'

    def test_is_not_another_tasks(self, store: FleetStore) -> None:
        work = Work(a_holder(store, "t1"))
        work.open("shop.other")
        store.client.hset(store.keys.checkpoint("t1"), "state", '"of another"')
        assert work.open() == ""
        assert "state" not in fields(store)


class TestEnd:
    def test_of_the_task_removes_it(self, store: FleetStore) -> None:
        process = a_holder(store, "t1")
        work = Work(process)
        work.open()
        work.save("1")
        assert process.acknowledge(str(work.token), task_id="t1", checkpoint=True)
        assert fields(store) == {}

    def test_told_by_a_late_copy_removes_nothing(self, store: FleetStore) -> None:
        first = a_holder(store, "t1")
        late = Work(first)
        late.open()
        late.save("1")
        first.is_now(State.GONE)
        rescue(first)
        assert not first.acknowledge(str(late.token), task_id="t1", checkpoint=True)
        assert fields(store)["state"] == "1"

    def test_of_another_delivery_removes_what_nobody_has_open(self, store: FleetStore) -> None:
        first = a_holder(store, "t1")
        work = Work(first)
        work.open()
        first.is_now(State.GONE)
        rescue(first)
        second = Process(store, "w2")
        token = second.take()
        assert second.acknowledge(token, task_id="t1", checkpoint=True)
        assert fields(store) == {}

    def test_leaves_what_another_delivery_has_open(self, store: FleetStore) -> None:
        """Its own retry, which began before the first try was acknowledged."""
        first = a_holder(store, "t1")
        put(store, SHARED, message("t1"))
        retry = taken_by(Process(store, "w2"))
        retry.open()
        assert first.acknowledge(first.tokens()[0], task_id="t1", checkpoint=True)
        assert fields(store)["token"] == str(retry.token)

    def test_without_a_checkpoint_or_with_a_unique_key(self, store: FleetStore) -> None:
        process = a_holder(store, "t1", "t2")
        store.client.set(store.keys.unique("k"), "t1")
        for token, task_id, key in zip(process.tokens(), ("t1", "t2"), ("k", ""), strict=True):
            lock = {"unique_key": key, "task_id": task_id, "checkpoint": True}
            assert process.acknowledge(token, **lock)
        assert not store.client.exists(store.keys.unique("k"))


class TestMove:
    def test_is_said_at_the_next_save(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        work = Work(a_holder(store, "t1"))
        work.open()
        assert work.save("1") is None
        assert work.ask("w2")
        assert not work.ask("w2"), "asked before"
        assert work.save("2") == "w2"
        assert work.save("3") == "w2", "who did not stop is told again"

    def test_goes_to_the_front_of_the_targets_own_queue(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        process = a_holder(store, "t1")
        own = store.keys.own_queue("w2")
        put(store, own, message("t0"))
        work = Work(process)
        work.open()
        work.ask("w2")
        work.save('{"n":3}')
        self.stop(process)
        assert store.client.llen(own) == 2
        target = Process(store, "w2")
        moved = taken_by(target)
        [(raw, queue)] = target.held().values()
        assert (read(raw).task_id, queue) == ("t1", own)
        assert f'"routing_key": "{own}"' in raw
        assert read(raw).lost == ()
        assert moved.open() == '{"n":3}'
        assert moved.save('{"n":4}') is None, "it has arrived"

    @pytest.mark.parametrize("to", ["w2", ""])
    def test_is_over_when_it_has_arrived(self, store: FleetStore, to: str) -> None:
        add_instance(store, "w2")
        process = a_holder(store, "t1")
        work = Work(process)
        work.open()
        work.ask(to)
        assert work.save("1") == to
        self.stop(process)
        taken_by(Process(store, "w2")).open()
        assert {"move_to", "move_of", "move_by", "move_at", "stopped"} & set(fields(store)) == set()

    def test_lasts_if_the_holder_dies_before_it_stops(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        first = a_holder(store, "t1")
        work = Work(first)
        work.open()
        work.ask("w2")
        again = first.loses_its_name()
        rescue(first)
        work = taken_by(again)
        work.open()
        assert work.save("1") == "w2"

    def test_to_anywhere_does_not_go_round(self, store: FleetStore) -> None:
        """It stopped, and the one that it left was the first to take it."""
        add_instance(store, "w2")
        first = a_holder(store, "t1")
        work = Work(first)
        work.open()
        work.ask()
        assert work.save("1") == ""
        again = first.loses_its_name()
        rescue(first)
        work = taken_by(again)
        work.open()
        assert work.save("2") is None

    def test_does_not_stop_for_a_target_that_is_not_there(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        work = Work(a_holder(store, "t1"))
        work.open()
        work.ask("w2")
        target = store.keys.instance("w2")
        store.client.hset(target, "state", "ZOMBIE")
        assert work.save("1") is None
        store.client.hset(target, "state", "ACTIVE")
        assert work.save("2") == "w2"

    def test_to_a_target_that_went_meanwhile_ends_elsewhere(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        add_instance(store, "w3")
        process = a_holder(store, "t1")
        work = Work(process)
        work.open()
        work.ask("w2")
        assert work.save("1") == "w2"
        store.client.hset(store.keys.instance("w2"), "state", "GONE")
        self.stop(process)
        assert store.client.llen(store.keys.own_queue("w3")) == 1

    def test_keeps_a_queue_that_was_named(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        process = Process(store)
        put(store, "video", message("t1"))
        process.take("video")
        work = Work(process)
        work.open()
        work.ask()
        work.save("1")
        self.stop(process)
        assert store.client.llen("video") == 1

    def test_is_taken_back(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        work = Work(a_holder(store, "t1"))
        work.open()
        work.ask("w2")
        saved = work.checkpoints.saved("t1")
        assert saved is not None
        assert saved.move is not None
        assert (saved.move.to, saved.move.of, saved.move.by) == ("w2", "w1", "ann@host")
        assert work.checkpoints.take_back("t1")
        assert not work.checkpoints.take_back("t1")
        assert work.save("1") is None

    def test_is_refused(self, store: FleetStore) -> None:
        add_instance(store, "w2")
        process = a_holder(store, "t1")
        work = Work(process)
        with pytest.raises(IntentRefused, match=r"shop\.pay\[t1\] runs without a checkpoint"):
            work.ask("w2")
        work.open()
        store.client.hset(store.keys.instance("w2"), "state", "LEAVING")
        with pytest.raises(IntentRefused, match="t1 cannot go to w2: is not ACTIVE any more"):
            work.ask("w2")
        run = Run(work.token, TASK, SHARED)
        process.acknowledge(str(work.token))
        with pytest.raises(IntentRefused, match="t1 is not running any more"):
            work.checkpoints.ask("t1", run, "", "ann@host")
        assert work.checkpoints.find_run("t1") is None

    def stop(self, process: Process) -> None:
        """As the worker's main process does when the task has stopped."""
        [token] = process.tokens()
        way: Any = Checkpoints(process.store).way("t1", process.instance, Settings())
        process.inflight.give_back(process.instance, process.epoch, way, tokens=[token])


def test_where_a_task_is_given_back_that_does_not_move(store: FleetStore) -> None:
    """The same as everything, if nobody else could take it."""
    process = a_holder(store, "t1")
    way = Checkpoints(store).way("t1", "w1", Settings())
    assert way(TASK, SHARED) == homes(store)(TASK, SHARED)
    assert process.held_ids() == ["t1"]
