"""The control plane's jobs and its beat, on a real server and a real SQLite history."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nxs_tasks import Fleet
from nxs_tasks.clock import FakeClock, wait_until
from nxs_tasks.control import jobs
from nxs_tasks.control.effects import apply_all
from nxs_tasks.errors import HistoryError
from nxs_tasks.model.decision import (
    Decision,
    Forget,
    Nothing,
    Outcome,
    Release,
    Rescue,
    Transition,
)
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.record import TickRecord
from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.rescue import rescue
from nxs_tasks.runtime import Runtime
from nxs_tasks.store import FleetStore, connect
from nxs_tasks.store.events import Events
from nxs_tasks.store.message import read
from nxs_tasks.store.shelves import Shelves
from tests.conftest import MakeApp, Server, add_instance, beat, set_back
from tests.integration.holding import TAKEN, Process
from tests.integration.messages import OWN, SHARED, contents, message, put, task_ids

DAY_S = 86_400.0
#: Silence counts from the start of the server, and that of the tests is young.
QUICK = {"heartbeat_period": 0.1, "gone_after": 1.5}
#: The same for a silence with connections left, which are ended after that of `evict_after`.
ZOMBIES = {**QUICK, "silent_after": 1.0, "zombie_after": 1.5}
#: What follows when w1 is gone.
GONE, RELEASED, RESCUED = [(what, "w1", True) for what in ("GONE", "Release", "Rescue")]


def look(runtime: Runtime, instance_id: str = "w1") -> Instance:
    found = runtime.store().snapshot(full=True).get(instance_id)
    assert found is not None
    return found


def acted(outcomes: list[Outcome]) -> list[tuple[str, str, bool]]:
    """Kind of decision (or the target state), instance, whether applied; without notes."""
    return [
        (
            str(o.decision.target if isinstance(o.decision, Transition) else _kind(o.decision)),
            o.decision.instance,
            o.applied,
        )
        for o in outcomes
        if not isinstance(o.decision, Nothing)
    ]


def _kind(decision: Decision) -> str:
    return type(decision).__name__


def sent(task_id: str) -> str:
    """A message as short as one can be."""
    headers = {"id": task_id, "task": "shop.pay"}
    return json.dumps({"body": "", "headers": headers, "properties": {}})


def waiting(store: FleetStore, queue: str) -> list[str]:
    return [json.loads(raw)["headers"]["id"] for raw in store.client.lrange(queue, 0, -1)]


def observed_for_long(store: FleetStore) -> None:
    """As if the lifecycle had been evaluated all the time."""
    now = store.now()
    store.client.hset(store.keys.observation(), mapping={"since": now - 3600, "last": now})


def last_run_was(store: FleetStore, job: str, seconds: float) -> None:
    """Move the last run of a job so much further back."""
    key = store.keys.last_ticks()
    tick = json.loads(store.client.hget(key, job) or "")
    store.client.hset(key, job, json.dumps({**tick, "at": repr(float(tick["at"]) - seconds)}))


@contextmanager
def connected(url: str, instance_id: str, epoch: int) -> Iterator[None]:
    """A connection of that process, as the broker sees it."""
    with connect(url, client_name=f"nxs:default:{instance_id}:{epoch}") as client:
        client.ping()
        yield


class Lives:
    """Instances by hand, on a server that runs for long enough."""

    @pytest.fixture
    def runtime(self, make_app: MakeApp, url: str) -> Runtime:
        runtime = make_app(url, **QUICK).runtime
        store = runtime.store()
        assert wait_until(lambda: store.check_server()["uptime_in_seconds"] >= 2, deadline_s=5)
        observed_for_long(store)
        return runtime

    def silence(self, store: FleetStore, instance_id: str = "w1", seconds: float = 20.0) -> None:
        set_back(store, instance_id, "beat_at", seconds)


class TestLifecycle(Lives):
    def test_no_fleet_is_no_work(self, runtime: Runtime) -> None:
        assert jobs.lifecycle(runtime) == []

    def test_from_joining_to_active(self, runtime: Runtime, url: str) -> None:
        store = runtime.store()
        epoch = add_instance(store, "w1", State.JOINING)
        with connected(url, "w1", epoch):
            for beats in (1, 2):
                assert acted(jobs.lifecycle(runtime)) == []
                assert look(runtime).verdict == f"{beats} of 3 consecutive heartbeats"
                beat(store, "w1", epoch, slots=2, consuming=True)
            assert acted(jobs.lifecycle(runtime)) == [("ACTIVE", "w1", True)]
            assert look(runtime).state is State.ACTIVE
            assert acted(jobs.lifecycle(runtime)) == []
            assert look(runtime).verdict == "healthy heartbeats"
        confirmed = Events(store).pending_transitions()[-1]
        assert (confirmed.event, confirmed.evidence["beats"]) == (Event.CONFIRMED, 3)
        assert confirmed.evidence["connections"] == 1

    def test_who_does_not_consume_stays_joining(self, runtime: Runtime, url: str) -> None:
        store = runtime.store()
        epoch = add_instance(store, "w1", State.JOINING)
        with connected(url, "w1", epoch):
            for _ in range(3):
                beat(store, "w1", epoch, slots=2, consuming=False)
            assert acted(jobs.lifecycle(runtime)) == []
            assert "does not consume" in look(runtime).verdict

    def test_from_active_over_gone_to_forgotten(self, runtime: Runtime) -> None:
        store = runtime.store()
        add_instance(store, "w1", ok=3)
        store.client.lpush(store.keys.own_queue("w1"), sent("a"), sent("b"))
        self.silence(store)
        assert acted(jobs.lifecycle(runtime)) == [GONE, RELEASED, RESCUED]
        assert waiting(store, "celery") == ["b", "a"]
        assert acted(jobs.lifecycle(runtime)) == []
        assert look(runtime).verdict == "is GONE"
        set_back(store, "w1", "since", 3590)
        assert acted(jobs.lifecycle(runtime)) == []
        set_back(store, "w1", "since", 20)
        assert acted(jobs.lifecycle(runtime)) == [("Forget", "w1", True)]
        assert store.snapshot().instances == ()
        assert 6 * DAY_S < store.client.ttl(store.keys.outcomes("w1")) <= 7 * DAY_S
        assert jobs.lifecycle(runtime) == []

    def test_one_that_is_gone_and_still_holds_is_not_forgotten(self, runtime: Runtime) -> None:
        store = runtime.store()
        epoch = add_instance(store, "w1", State.GONE)
        set_back(store, "w1", "since", 4000)
        store.client.hset(store.keys.inflight("w1", epoch), "tag", "no message")
        assert acted(jobs.lifecycle(runtime)) == [RESCUED]
        assert look(runtime).verdict == "is GONE, still named as holder of 1"
        assert acted(jobs.lifecycle(runtime)) == [("Forget", "w1", True)]

    @pytest.mark.parametrize("state", [State.JOINING, State.DEGRADED, State.LEAVING, State.ZOMBIE])
    def test_from_any_living_state_to_gone(self, runtime: Runtime, state: State) -> None:
        add_instance(runtime.store(), "w1", state)
        self.silence(runtime.store())
        assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED]
        last = Events(runtime.store()).pending_transitions()[-1]
        assert (last.source, last.event) == (state, Event.SILENT_CLOSED)

    def test_who_is_silent_and_connected_stays(self, runtime: Runtime, url: str) -> None:
        epoch = add_instance(runtime.store(), "w1")
        self.silence(runtime.store())
        with connected(url, "w1", epoch):
            assert acted(jobs.lifecycle(runtime)) == []
            assert look(runtime).state is State.ACTIVE
        assert wait_until(lambda: look(runtime).connections == 0, deadline_s=5)
        assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED]

    def test_connections_of_an_older_process_are_none_of_this_one(
        self, runtime: Runtime, url: str
    ) -> None:
        add_instance(runtime.store(), "w1")
        epoch = add_instance(runtime.store(), "w1")
        self.silence(runtime.store())
        with connected(url, "w1", epoch - 1):
            assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED, RESCUED]  # both processes

    def test_a_restart_of_the_server_condemns_nobody(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        runtime = make_app(own_server.url).runtime
        for n in range(3):
            add_instance(runtime.store(), f"w{n}")
            self.silence(runtime.store(), f"w{n}")
        own_server.kill()
        own_server.start()
        assert acted(jobs.lifecycle(runtime)) == []
        assert {i.state for i in runtime.store().snapshot().instances} == {State.ACTIVE}

    def test_after_a_silence_of_most_the_last_get_time_to_be_heard(self, runtime: Runtime) -> None:
        store = runtime.store()
        epochs = {name: add_instance(store, name) for name in ("w1", "w2", "w3", "w4")}
        for name in epochs:
            self.silence(store, name)
        assert acted(jobs.lifecycle(runtime)) == []
        assert "4 of 4 instances are silent at once" in look(runtime).verdict
        for name in ("w2", "w3", "w4"):
            beat(store, name, epochs[name], slots=2, consuming=True)
        assert acted(jobs.lifecycle(runtime)) == [], "w1 is the last that is heard again"
        key = store.keys.observation()
        store.client.hset(key, "believed", float(store.client.hget(key, "believed") or 0) - 20.0)
        assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED]

    @pytest.mark.parametrize("step", [600.0, -600.0])
    def test_the_observer_s_own_clock_condemns_nobody(self, runtime: Runtime, step: float) -> None:
        clock = runtime.clock = FakeClock(runtime.store().now())
        add_instance(runtime.store(), "w1")
        for _ in range(3):
            jobs.run_job(runtime, "lifecycle", "here")
            clock.advance(step)
        assert look(runtime).state is State.ACTIVE
        self.silence(runtime.store())
        jobs.run_job(runtime, "lifecycle", "here")
        assert look(runtime).state is State.GONE, "nor does it save anybody"

    def test_where_connections_cannot_be_known_nobody_is_gone(
        self, runtime: Runtime, make_app: MakeApp, url: str
    ) -> None:
        add_instance(runtime.store(), "w1")
        self.silence(runtime.store())
        rights = ["on", ">pw", "~*", "&*", "+@all", "-client|list"]
        with connect(url) as client:
            client.execute_command("ACL", "SETUSER", "shy", *rights)
            try:
                shy = make_app(url.replace("//", "//shy:pw@"), **QUICK).runtime
                assert acted(jobs.lifecycle(shy)) == []
                assert look(shy).state is State.ACTIVE
            finally:
                client.execute_command("ACL", "DELUSER", "shy")
        assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED]

    def test_leaving(self, runtime: Runtime, url: str) -> None:
        store = runtime.store()
        epoch = add_instance(store, "w1", State.LEAVING)
        held = store.keys.inflight("w1", epoch)
        store.client.hset(held, "tag", "message")
        store.client.lpush(store.keys.own_queue("w1"), sent("a"))
        with connected(url, "w1", epoch):
            assert acted(jobs.lifecycle(runtime)) == [("Release", "w1", True)]
            assert waiting(store, "celery") == ["a"]
            assert look(runtime).verdict == "shutting down, still holds 1 task(s)"
            store.heartbeat(
                "w1",
                epoch,
                look(runtime).load,
                longest_gap_s=10,
                succeeded=0,
                failed=0,
                window_days=7,
                last=True,
            )
            assert acted(jobs.lifecycle(runtime)) == []
            assert "1 held message(s) are not yet given back" in look(runtime).verdict
            store.client.delete(held)
            assert acted(jobs.lifecycle(runtime)) == [GONE, RESCUED]
        assert Events(store).pending_transitions()[-1].event == Event.DRAINED

    def test_a_second_run_changes_nothing(self, runtime: Runtime, url: str) -> None:
        store = runtime.store()
        add_instance(store, "silent")
        self.silence(store, "silent")
        with ExitStack() as connections:
            for state in State:
                name = f"{state}@host"
                epoch = add_instance(store, name, state)
                connections.enter_context(connected(url, name, epoch))
            assert ("GONE", "silent", True) in acted(jobs.lifecycle(runtime))
            assert acted(jobs.lifecycle(runtime)) == []
            before = store.snapshot().instances
            recorded = Events(store).pending_transitions()
            assert jobs.lifecycle(runtime) == []
        assert store.snapshot().instances == before
        assert Events(store).pending_transitions() == recorded

    def test_what_was_decided_about_another_world_is_not_done(self, runtime: Runtime) -> None:
        store = runtime.store()
        add_instance(store, "silent")
        self.silence(store, "silent")
        add_instance(store, "waiting", State.GONE)
        own = store.keys.own_queue("waiting")
        store.client.lpush(own, sent("a"))
        add_instance(store, "old", State.GONE)
        set_back(store, "old", "since", 4000)
        add_instance(store, "new", State.JOINING)
        snapshot = store.snapshot(full=True)
        decisions = evaluate(snapshot, runtime.settings, snapshot.taken_at)
        kinds = {d.instance: type(d) for d in reversed(decisions)}
        assert kinds == {
            "silent": Transition,
            "waiting": Release,
            "old": Forget,
            "new": Nothing,
        }
        for name in kinds:
            add_instance(store, name, State.JOINING)  # its machine has started it again
        before, recorded = store.snapshot().instances, Events(store).pending_transitions()
        outcomes = apply_all(decisions, store, runtime.settings)
        assert {o.decision.instance: o.applied for o in outcomes} == dict.fromkeys(kinds, False)
        assert all(o.detail.startswith(f"{o.decision.instance} ") for o in outcomes)
        assert store.snapshot().instances == before
        assert Events(store).pending_transitions() == recorded
        assert waiting(store, own) == ["a"]

    def test_one_effect_that_comes_too_late_does_not_stop_the_others(
        self, runtime: Runtime
    ) -> None:
        store = runtime.store()
        for name in ("w1", "w2"):
            add_instance(store, name)
            self.silence(store, name)
        snapshot = store.snapshot(full=True)
        decisions: list[Decision] = evaluate(snapshot, runtime.settings, snapshot.taken_at)
        add_instance(store, "w1")
        assert acted(apply_all(decisions, store, runtime.settings)) == [
            ("GONE", "w1", False),
            ("GONE", "w2", True),
        ]

    def test_one_effect_that_fails_does_not_stop_the_others(
        self, runtime: Runtime, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = runtime.store()
        epoch = add_instance(store, "w1", State.LEAVING)
        store.client.lpush(store.keys.own_queue("w1"), sent("a"))
        store.client.set("text", "no list")
        add_instance(store, "w2")
        self.silence(store, "w2")
        snapshot = store.snapshot(full=True)
        bad = Release(
            instance="w1", epoch=epoch, source=State.LEAVING, target="text", reason="it leaves"
        )
        decisions = evaluate(snapshot, runtime.settings, snapshot.taken_at)
        gone = [d for d in decisions if d.instance == "w2"]
        first, *others = apply_all([bad, *gone], store, runtime.settings)
        assert (first.applied, "WRONGTYPE" in first.detail) == (False, True)
        assert acted(others) == [("GONE", "w2", True)]
        assert "cannot be carried out" in caplog.text


class TestZombie(Lives):
    """Silent with connections left: its machine is frozen, or it is cut off."""

    def zombies(self, make_app: MakeApp, url: str, evict_after: float = 3600.0) -> Runtime:
        return make_app(url, **ZOMBIES, evict_after=evict_after).runtime

    def test_it_keeps_what_it_holds_and_loses_what_waits_for_it(
        self, runtime: Runtime, make_app: MakeApp, url: str
    ) -> None:
        store = runtime.store()
        process = Process(store)
        put(store, SHARED, message("held"))
        token = process.take()
        put(store, OWN, message("waits"))
        self.silence(store)
        zombies = self.zombies(make_app, url)
        with connected(url, "w1", process.epoch):
            assert acted(jobs.lifecycle(zombies)) == [("ZOMBIE", "w1", True), RELEASED]
            put(store, OWN, message("placed since"))
            assert acted(jobs.lifecycle(zombies)) == [RELEASED]
            assert acted(jobs.lifecycle(zombies)) == []
            assert look(zombies).state is State.ZOMBIE
            assert "no heartbeat for" in look(zombies).verdict
        assert task_ids(store, SHARED) == ["placed since", "waits"]
        assert process.held_ids() == ["held"]
        assert process.acknowledge(token), "nobody else has been given it"

    def test_one_that_stays_silent_is_gone_and_its_work_goes_to_others(
        self, runtime: Runtime, make_app: MakeApp, url: str
    ) -> None:
        store = runtime.store()
        process = Process(store)
        put(store, SHARED, message("held"))
        token = process.take()
        process.is_now(State.ZOMBIE)
        self.silence(store)
        with connected(url, "w1", process.epoch):
            assert acted(jobs.lifecycle(self.zombies(make_app, url))) == []
            assert acted(jobs.lifecycle(self.zombies(make_app, url, 1.6))) == [GONE, RESCUED]
        assert Events(store).pending_transitions()[-1].event == Event.TERMINATED
        assert task_ids(store, SHARED) == ["held"]
        assert not process.acknowledge(token)


class TestRescue(Lives):
    def test_in_the_run_that_finds_it_gone_its_work_is_given_back(self, runtime: Runtime) -> None:
        store = runtime.store()
        process = Process(store)
        put(store, SHARED, message("a"), message("b"))
        tokens = [process.take(), process.take()]
        put(store, OWN, message("own"))
        put(store, SHARED, message("waits"))
        self.silence(store)
        outcomes = jobs.lifecycle(runtime)
        assert acted(outcomes) == [GONE, RELEASED, RESCUED]
        assert outcomes[-1].detail == "2 task(s) given back"
        assert task_ids(store, SHARED) == ["a", "b", "own", "waits"], "what was taken first"
        [loss] = read(contents(store, SHARED)[0].decode()).lost
        assert (loss["instance"], loss["epoch"]) == ("w1", process.epoch)
        assert abs(loss["at"] - store.now()) < 60
        assert [process.acknowledge(token) for token in tokens] == [False, False]
        assert store.holders() == ()
        assert acted(jobs.lifecycle(runtime)) == []

    def test_of_every_process_that_is_gone_and_of_no_other(
        self, runtime: Runtime, url: str
    ) -> None:
        store = runtime.store()
        old = Process(store, "replaced")
        forgotten, failed, alive = (Process(store, n) for n in ("forgotten", "failed", "alive"))
        for process in (old, forgotten, failed, alive):
            put(store, SHARED, message(f"of {process.instance}"))
            process.take()
        new = old.loses_its_name()
        put(store, SHARED, message("of the new one"))
        new.take()
        failed.is_now(State.FAILED)
        forgotten.is_forgotten()
        store.client.srem(store.keys.members(), "forgotten")
        with connected(url, "alive", 1), connected(url, "replaced", 2):
            outcomes = jobs.lifecycle(runtime)
        rescued = {
            o.decision.instance: o.decision.reason
            for o in outcomes
            if isinstance(o.decision, Rescue) and o.applied
        }
        assert rescued == {
            "failed": "its instance is FAILED",
            "forgotten": "there is no record of its instance",
            "replaced": "its name belongs to a process with epoch 2",
        }
        assert sorted(task_ids(store, SHARED)) == ["of failed", "of forgotten", "of replaced"]
        assert (alive.held_ids(), new.held_ids()) == (["of alive"], ["of the new one"])

    def test_what_kills_its_holders_is_put_into_quarantine(
        self, make_app: MakeApp, url: str, runtime: Runtime
    ) -> None:
        runtime = make_app(url, **QUICK, lost_holders=2).runtime
        store = runtime.store()
        put(store, SHARED, message("poison"))
        for n in (1, 2):
            process = Process(store, f"w{n}")
            process.take()
            process.is_now(State.GONE)
            *_, rescued = jobs.lifecycle(runtime)
            assert isinstance(rescued.decision, Rescue)
            aside = ", 1 put into quarantine" if n == 2 else ""
            assert rescued.detail == f"{2 - n} task(s) given back{aside}"
        [entry] = Shelves(store).entries(QUARANTINE)
        assert (entry.task_id, entry.reason) == ("poison", "lost its holder 2 times, last w2")
        assert contents(store, SHARED) == []

    def test_it_goes_to_who_knows_it(self, runtime: Runtime, url: str) -> None:
        store = runtime.store()
        process = Process(store, "w1", tasks=("shop.pay",))
        put(store, SHARED, message("a"))
        process.take()
        add_instance(store, "knows", tasks=("shop.pay",))
        add_instance(store, "other", tasks=("shop.mail",))
        process.is_now(State.GONE)
        with connected(url, "knows", 1), connected(url, "other", 1):
            assert acted(jobs.lifecycle(runtime)) == [RESCUED]
        assert task_ids(store, store.keys.own_queue("knows")) == ["a"]

    def test_one_that_comes_back_before_the_rescue_keeps_what_it_holds(
        self, runtime: Runtime
    ) -> None:
        store = runtime.store()
        process = Process(store)
        put(store, SHARED, message("a"))
        process.take()
        process.is_now(State.GONE)
        decisions = rescue(store.snapshot(full=True))
        process.is_now(State.ACTIVE)
        [outcome] = apply_all(decisions, store, runtime.settings)
        assert (outcome.applied, outcome.detail) == (False, "w1 with epoch 1 is part of the fleet")
        assert process.held_ids() == ["a"]

    def test_two_control_workers_at_once_give_back_once(
        self, runtime: Runtime, make_app: MakeApp, url: str
    ) -> None:
        store = runtime.store()
        names = [f"t{n}" for n in range(500)]
        put(store, SHARED, *map(message, names))
        processes = [Process(store, f"w{n}") for n in range(4)]
        while all(process.ask()[0] == TAKEN for process in processes):
            pass
        for process in processes:
            process.is_now(State.GONE)
        nodes = [make_app(url, **QUICK).runtime for _ in range(3)]
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(jobs.lifecycle, nodes))
        assert sorted(task_ids(store, SHARED)) == sorted(names)
        lost = [read(raw.decode()).lost for raw in contents(store, SHARED)]
        assert {len(losses) for losses in lost} == {1}
        assert store.holders() == ()


class TestRecord:
    @pytest.fixture
    def fleet(self, make_app: MakeApp, url: str) -> Fleet:
        return make_app(url, placement_sample=1)

    def fill(self, fleet: Fleet) -> None:
        """A transition, two placements, a tick."""
        add_instance(fleet.runtime.store(), "w1", State.JOINING)
        for n in range(2):
            fleet.app.send_task("shop.pay", task_id=f"t-{n}", ignore_result=True)
        jobs.run_job(fleet.runtime, "lifecycle", node="control@host")

    def test_it_moves_everything_into_the_history(self, fleet: Fleet) -> None:
        self.fill(fleet)
        pending = Events(fleet.runtime.store()).read().records
        assert len(pending) == 4
        assert jobs.record(fleet.runtime) == 4
        history = fleet.runtime.history()
        assert {
            *(r.event_id for r in history.transitions()),
            *(r.event_id for r in history.placements()),
            *(r.event_id for r in history.ticks()),
        } == {r.event_id for r in pending}
        assert history.transitions()[0] == pending[0]
        assert {p.task_id for p in history.placements()} == {"t-0", "t-1"}
        assert history.ticks("lifecycle")[0].node == "control@host"
        assert Events(fleet.runtime.store()).read().records == ()
        assert jobs.record(fleet.runtime) == 0

    def test_after_a_crash_between_add_and_done_nothing_is_there_twice(self, fleet: Fleet) -> None:
        self.fill(fleet)
        history, events = fleet.runtime.history(), Events(fleet.runtime.store())
        assert history.add(events.read().records) == 4
        fleet.app.send_task("shop.pay", task_id="t-2", ignore_result=True)
        assert jobs.record(fleet.runtime) == 1
        assert events.read().records == ()
        assert len(history.transitions()) == 1
        assert sorted(p.task_id for p in history.placements()) == ["t-0", "t-1", "t-2"]
        assert len(history.ticks()) == 1

    def test_more_than_one_batch(self, fleet: Fleet) -> None:
        store = fleet.runtime.store()
        one = {"at": "1.5", "instance": "", "score": "", "reason": "-", "candidates": "[]"}
        Events(store).add_placements((f"t-{n}", "shop.pay", one) for n in range(2500))
        assert jobs.record(fleet.runtime) == 2500
        assert store.client.xlen(store.keys.placements()) == 0
        assert len(fleet.runtime.history().placements(limit=9999)) == 2500

    def test_one_that_cannot_be_kept_does_not_hold_up_the_others(
        self, fleet: Fleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        fleet.app.send_task("shop.pay", task_id="x" * 600, ignore_result=True)
        self.fill(fleet)
        pending = Events(fleet.runtime.store()).read().records
        assert jobs.record(fleet.runtime) == len(pending) - 1
        assert len(fleet.runtime.history().transitions()) == 1
        assert [p.task_id for p in fleet.runtime.history().placements()] == ["t-1", "t-0"]
        [left_out] = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert next(r.event_id for r in pending if getattr(r, "task_id", "")) in left_out.message
        assert Events(fleet.runtime.store()).read().records == ()

    def test_an_entry_that_is_no_event_is_cleared_away(self, fleet: Fleet) -> None:
        store = fleet.runtime.store()
        for expected in (0, 4):
            store.client.xadd(store.keys.transitions(), {"made": "by hand"})
            assert jobs.record(fleet.runtime) == expected
            assert store.client.xlen(store.keys.transitions()) == 0
            self.fill(fleet)

    def test_a_history_that_fails_keeps_the_events(self, fleet: Fleet, tmp_path: Path) -> None:
        self.fill(fleet)
        history = fleet.runtime.history()
        with sqlite3.connect(tmp_path / "history.db") as database:
            database.execute("ALTER TABLE nxs_ticks RENAME TO hidden")
        with pytest.raises(HistoryError):
            jobs.record(fleet.runtime)
        assert len(Events(fleet.runtime.store()).read().records) == 4
        with sqlite3.connect(tmp_path / "history.db") as database:
            database.execute("ALTER TABLE hidden RENAME TO nxs_ticks")
        assert jobs.record(fleet.runtime) == 4
        assert len(history.placements()) == 2

    def test_a_history_that_does_not_open_keeps_the_events(
        self, make_app: MakeApp, url: str
    ) -> None:
        fleet = make_app(url, placement_sample=1, history_url="sqlite:////no-such-directory/h.db")
        self.fill(fleet)
        with pytest.raises(HistoryError, match="no-such-directory"):
            jobs.record(fleet.runtime)
        assert len(Events(fleet.runtime.store()).read().records) == 4


class TestRunJob:
    def test_lateness_is_the_time_beyond_the_period(self, make_app: MakeApp, url: str) -> None:
        runtime = make_app(url, lifecycle_period=50.0).runtime
        store = runtime.store()
        begun = store.now()
        for gap in (None, 50.0, 125.0, 30.0):
            if gap is not None:
                last_run_was(store, "lifecycle", gap)
            jobs.run_job(runtime, "lifecycle", node="control@host")
        jobs.record(runtime)
        ticks = list(reversed(runtime.history().ticks()))
        # Whole periods apart, so that what the test itself takes does not matter.
        assert [t.lateness_s // 25 for t in ticks] == [0, 0, 3, 0]
        assert {(t.job, t.node) for t in ticks} == {("lifecycle", "control@host")}
        assert all(begun <= t.at <= store.now() for t in ticks), "the server's time"

    def test_each_job_is_measured_by_its_own_period(self, make_app: MakeApp, url: str) -> None:
        runtime = make_app(url, lifecycle_period=100.0, prune_period=1000.0).runtime
        for name in ("lifecycle", "prune"):
            jobs.run_job(runtime, name, node="a")
            last_run_was(runtime.store(), name, 1500.0)
            jobs.run_job(runtime, name, node="b")
        last = Events(runtime.store()).last_ticks()
        late = {name: tick.lateness_s // 100 for name, tick in last.items()}
        assert late == {"lifecycle": 14, "prune": 5}

    def test_the_job_is_done(self, make_app: MakeApp, url: str) -> None:
        runtime = make_app(url).runtime
        add_instance(runtime.store(), "w1")
        jobs.run_job(runtime, "record", node="a")
        assert len(runtime.history().transitions()) == 2
        assert Events(runtime.store()).last_ticks()["record"].took_s > 0

    def test_prune_keeps_the_days_that_are_set(self, make_app: MakeApp, url: str) -> None:
        clock = FakeClock()
        runtime = make_app(url, clock=clock, history_days=2).runtime
        ages = [0.5, 1.5, 2.5, 3.5]
        runtime.history().add(
            [
                TickRecord(
                    event_id=str(age),
                    at=clock.now() - age * DAY_S,
                    job="lifecycle",
                    lateness_s=0.0,
                    took_s=0.0,
                    node="a",
                )
                for age in ages
            ]
        )
        assert jobs.prune(runtime) == 2
        assert [t.event_id for t in runtime.history().ticks()] == ["0.5", "1.5"]

    def test_a_task_of_an_old_term_is_left_out_once_a_newer_one_has_run(
        self, make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        runtime = make_app(url).runtime
        events = Events(runtime.store())

        def runs(term: int | None) -> bool:
            before = events.last_ticks().get("record")
            jobs.run_job(runtime, "record", "control@t", term)
            return events.last_ticks().get("record") != before

        # None is sent by a person, or by a beat of Celery's own.
        terms = [3, 2, None, 3, 2, 4, 3]
        assert [runs(term) for term in terms] == [True, False, True, True, False, True, False]
        assert "record of term 3 is not run: it has run in term 4" in caplog.text

    def test_the_control_tasks_run_them(self, make_app: MakeApp, url: str) -> None:
        fleet = make_app(url)
        for name in jobs.JOBS:
            fleet.app.tasks[f"nxs.control.{name}"].apply(throw=True)
        assert set(Events(fleet.runtime.store()).last_ticks()) == set(jobs.JOBS)
