"""The story of a silent zombie, step by step, on a real server: what each does, whom it spares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nxs_tasks import Fleet
from nxs_tasks.clock import wait_until
from nxs_tasks.control import jobs
from nxs_tasks.control.evicting import EVICTION, STEPS, start_evictions
from nxs_tasks.control.workflows import EVICT
from nxs_tasks.model.decision import Outcome, Transition
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore, connect
from nxs_tasks.store.events import Events
from nxs_tasks.store.locks import Lock
from nxs_tasks.store.message import read
from nxs_tasks.store.orphaned import free_locks
from tests.conftest import MakeApp, set_back
from tests.integration.holding import Process
from tests.integration.messages import OWN, SHARED, contents, message, put, task_ids

#: Silence counts from the start of the server, and that of the tests is young.
QUICK = {
    "heartbeat_period": 0.1,
    "join_period": 0.1,
    "gone_after": 0.5,
    "silent_after": 0.5,
    "zombie_after": 0.5,
    "evict_after": 1.0,
}


#: More than `evict_after`, s.
UPTIME_S = 3


class Case:
    """A process that holds a task, has another waiting, and fell silent with a connection open."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet = fleet
        self.runtime = fleet.runtime
        self.store = fleet.runtime.store()
        # As a control worker that has looked at the fleet all the time.
        self.store.client.hset(
            self.store.keys.observation(),
            mapping={"since": self.store.now() - 100, "last": self.store.now()},
        )
        self.process = Process(self.store, "w1")
        put(self.store, SHARED, message("held"))
        self.token = self.process.take(SHARED)
        put(self.store, OWN, message("waits"))
        name = self.store.keys.client_name("w1", self.process.epoch)
        self.clients = [connect(url, client_name=name) for _ in range(2)]
        for client in self.clients:
            client.ping()

    def is_a_zombie(self, silent_s: float = 60.0) -> None:
        self.process.is_now(State.ZOMBIE)
        set_back(self.store, "w1", "beat_at", silent_s)

    def do(self, *steps: str) -> list[bool]:
        return [STEPS[step](self.runtime, "w1", self.process.epoch) for step in steps]

    def told(self) -> list[str]:
        found = Events(self.store).pending_transitions("w1")
        return [t.reason for t in found if t.event == EVICTION]

    def connections(self) -> int:
        name = self.store.keys.client_name("w1", self.process.epoch)
        return (self.store.connections() or {}).get(name, 0)

    @property
    def state(self) -> State:
        found = self.store.snapshot().get("w1")
        assert found is not None
        return found.state


@pytest.fixture
def case(url: str, make_app: MakeApp) -> Iterator[Case]:
    case = Case(make_app(url, **QUICK), url)

    def is_old() -> bool:
        return int(case.store.check_server()["uptime_in_seconds"]) >= UPTIME_S

    assert wait_until(is_old, 10 * UPTIME_S), "silence counts from the start of the server"
    yield case
    for client in case.clients:
        client.close()


class TestTheStory:
    def test_in_full(self, case: Case) -> None:
        case.is_a_zombie()
        lock = Lock(case.store, "book", owner=case.process.identity, lease_s=600)
        other = Lock(case.store, "other", owner="elsewhere/1", lease_s=600)
        assert all(one.acquire() for one in (lock, other))
        assert case.do("ask") == [True]
        assert (case.state, case.connections()) == (State.ZOMBIE, 2)
        assert case.do("cut") == [True]
        assert (case.state, case.connections()) == (State.ZOMBIE, 0)
        assert case.do("end") == [True]
        assert case.state is State.GONE
        assert task_ids(case.store, SHARED) == ["waits", "held"]
        [loss] = read(contents(case.store, SHARED)[1].decode()).lost
        assert (loss["instance"], loss["epoch"]) == ("w1", 1)
        assert not lock.renew(), "it is free"
        assert other.renew()
        assert not case.process.acknowledge(case.token), "and it may not end its task"
        assert case.told() == [
            "asked to end, by a message to its remote control",
            "has not answered: 2 connection(s) of its process closed",
            "what it held: 1 task(s) given back; what waited for it: 1 task(s) moved; "
            "lock(s) freed: book",
        ]
        for one in (lock, other):
            one.release()

    def test_each_step_may_be_done_twice(self, case: Case) -> None:
        case.is_a_zombie()
        case.do("ask", "ask", "cut", "cut", "end", "end")
        assert case.state is State.GONE
        assert task_ids(case.store, SHARED) == ["waits", "held"]
        assert len(read(contents(case.store, SHARED)[1].decode()).lost) == 1

    def test_where_the_lifecycle_was_faster_the_rest_is_done(self, case: Case) -> None:
        case.is_a_zombie()
        case.process.is_now(State.GONE)
        assert case.do("cut", "end") == [True, True]
        assert case.connections() == 0
        assert "held" in task_ids(case.store, SHARED)

    @pytest.mark.parametrize("step", STEPS)
    def test_what_lives_again_is_spared(self, case: Case, step: str) -> None:
        case.is_a_zombie()
        case.process.is_now(State.JOINING)
        assert case.do(step) == [False]
        assert (case.state, case.connections()) == (State.JOINING, 2)
        assert case.process.held_ids() == ["held"]
        assert case.told() == ["not evicted (epoch 1): it is alive again, JOINING"]

    @pytest.mark.parametrize("step", STEPS)
    def test_so_is_who_has_its_name_now(self, case: Case, step: str) -> None:
        case.is_a_zombie()
        case.process.loses_its_name()
        assert case.do(step) == [False]
        assert case.connections() == 2
        assert case.told() == ["not evicted (epoch 1): its name belongs to a process with epoch 2"]

    def test_too_early_it_is_left_to_the_lifecycle(self, case: Case) -> None:
        case.is_a_zombie(silent_s=0.8)
        assert case.do("cut") == [False]
        assert (case.state, case.connections()) == (State.ZOMBIE, 2)
        assert "left to the lifecycle: no heartbeat for 1 s" in case.told()[0]

    def test_without_a_record_nothing_is_done(self, case: Case) -> None:
        case.process.is_forgotten()
        assert case.do("ask", "cut", "end") == [False] * 3


class TestItsBeginning:
    @staticmethod
    def outcome(event: Event, applied: bool = True) -> Outcome:
        move = Transition(
            instance="w1",
            epoch=1,
            source=State.ACTIVE,
            target=State.ZOMBIE if event is not Event.SILENT_CLOSED else State.GONE,
            event=event,
            reason="as the test wants it",
            evidence={"silent_s": 0.6},
        )
        return Outcome(decision=move, applied=applied)

    def test_a_silent_zombie_begins_it(self, case: Case) -> None:
        assert start_evictions(case.runtime, [self.outcome(Event.SILENT_CONNECTED)]) == ["w1"]
        [sent] = contents(case.store, case.runtime.keys.control_queue())
        assert read(sent.decode()).task == f"{EVICT}ask"

    @pytest.mark.parametrize(
        ("event", "applied"),
        [(Event.DEAF, True), (Event.SILENT_CLOSED, True), (Event.SILENT_CONNECTED, False)],
    )
    def test_nothing_else_does(self, case: Case, event: Event, applied: bool) -> None:
        assert start_evictions(case.runtime, [self.outcome(event, applied)]) == []
        assert contents(case.store, case.runtime.keys.control_queue()) == []

    def test_the_lifecycle_job_begins_it_once(self, case: Case) -> None:
        set_back(case.store, "w1", "beat_at", 0.8)
        jobs.lifecycle(case.runtime)
        assert case.state is State.ZOMBIE
        jobs.lifecycle(case.runtime)
        assert len(contents(case.store, case.runtime.keys.control_queue())) == 1


class TestLocks:
    def test_only_those_of_that_process_outside_of_its_tasks(self, store: FleetStore) -> None:
        held = [
            Lock(store, name, owner=owner, lease_s=600)
            for name, owner in (("b", "h/1/x"), ("a", "h/1/x"), ("c", "h/1/xy"), ("d", "h/2/x"))
        ]
        assert all(lock.acquire() for lock in held)
        store.client.set(store.keys.lock("e"), "no lock")
        assert free_locks(store, "h/1/x") == ["a", "b"]
        assert free_locks(store, "h/1/x") == []
        assert free_locks(store, "") == []
        again = Lock(store, "a", owner="h/3", lease_s=600)
        assert again.acquire(0)
        assert again.token > 0
        for lock in (*held, again):
            lock.release()
