"""A worker that judges itself by what others report, on the real store."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.clock import FakeClock
from nxs_tasks.model.decision import Eject, Nothing
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.runs import RecentRuns, TooManyEjected
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.ejecting import Ejecting
from nxs_tasks.worker.tally import Tally
from tests.conftest import Server, new_store
from tests.integration.holding import NOTHING, Process
from tests.integration.messages import OWN, SHARED, message, put, task_ids
from tests.integration.test_place_script import place, room_of
from tests.unit.builders import knobs

PAY = "shop.pay"


class Worker:
    """An instance that judges itself when it is told to."""

    def __init__(self, store: FleetStore, name: str) -> None:
        self.process = Process(store, name, slots=2)
        self.tally = Tally()
        self.tenure = Tenure(store, name, self.process.epoch)
        self.ejecting = Ejecting(store, self.tenure, self.tally, knobs())

    def fail(self, count: int, task: str = PAY) -> None:
        for _ in range(count):
            self.tally.failure(task)

    def succeed(self, count: int, task: str = PAY) -> None:
        for _ in range(count):
            self.tally.success(task, 0.1)
        self.ejecting.look()


@pytest.fixture
def fleet(store: FleetStore) -> list[Worker]:
    return [Worker(store, f"w{n}") for n in range(1, 4)]


def test_it_stops_at_the_fifth_failure_and_is_ejected(
    store: FleetStore, fleet: list[Worker]
) -> None:
    hole, other, _ = fleet
    hole.fail(4)
    assert not hole.tenure.suspended
    hole.fail(1)
    assert hole.tenure.suspended
    other.succeed(10)
    assert isinstance(hole.ejecting.look(), Eject)
    hole.ejecting.look_safely()
    assert not hole.tenure.suspended
    found = store.snapshot().get("w1")
    assert found is not None
    assert (found.state, found.ejections) == (State.DEGRADED, 1)
    assert "go well elsewhere" in found.ejected_why
    assert found.ejected_until - store.now() == pytest.approx(30.0, abs=5.0)


def test_who_is_ejected_gets_nothing_and_then_again(store: FleetStore, fleet: list[Worker]) -> None:
    hole, other, _ = fleet
    hole.fail(5)
    other.succeed(10)
    hole.ejecting.look()
    put(store, SHARED, message("t1", SHARED))
    kind, wait_ms = hole.process.ask()
    assert (kind, 0 < wait_ms <= 30_000) == (NOTHING, True)
    assert place(store, 1, {OWN: [message("t2")]}, {OWN: room_of(hole.process)}) == 2
    assert task_ids(store, SHARED) == ["t1", "t2"]
    store.client.hset(store.keys.instance("w1"), "ejected_until", repr(store.now() - 1))
    assert hole.process.take()


def test_a_task_that_fails_everywhere_ejects_nobody(fleet: list[Worker]) -> None:
    for _ in range(3):
        for worker in fleet:
            worker.fail(5)
            assert isinstance(worker.ejecting.look(), Nothing)
            assert worker.tally.rows


def test_what_went_well_before_it_failed_for_all_ejects_nobody(
    store: FleetStore, fleet: list[Worker]
) -> None:
    fleet[1].succeed(50)
    base = store.keys.runs("")
    found: Any = store.client.scan_iter()
    for key in list(found):
        if key.startswith(base.rstrip(":")) and key.rpartition(":")[2].isdigit():
            head, _, period = key.rpartition(":")
            store.client.rename(key, f"{head}:{int(period) - 2}")
    fleet[0].fail(5)
    assert isinstance(fleet[0].ejecting.look(), Nothing)


def test_what_fails_elsewhere_too_suspends_only_once(fleet: list[Worker]) -> None:
    fleet[0].fail(5)
    fleet[1].fail(5)
    fleet[1].ejecting.look()
    fleet[0].ejecting.look_safely()
    fleet[0].fail(5)
    assert not fleet[0].tenure.suspended


def test_the_last_one_is_never_ejected(store: FleetStore) -> None:
    last, gone = Worker(store, "w1"), Worker(store, "w2")
    last.fail(5)
    gone.succeed(50)
    store.client.hset(store.keys.instance("w2"), "state", State.GONE)
    decision = last.ejecting.look()
    assert isinstance(decision, Eject)
    with pytest.raises(TooManyEjected):
        RecentRuns(store).eject(decision)


def test_without_comparison_nobody_is_ejected(fleet: list[Worker]) -> None:
    fleet[0].fail(50)
    assert isinstance(fleet[0].ejecting.look(), Nothing)


def test_not_more_than_one_of_a_few_is_ejected(store: FleetStore, fleet: list[Worker]) -> None:
    first, second, good = fleet
    first.fail(5)
    second.fail(5)
    good.succeed(90)
    first.ejecting.look()
    decision = second.ejecting.look()
    assert isinstance(decision, Eject)
    with pytest.raises(TooManyEjected, match="1 instance"):
        RecentRuns(store).eject(decision)
    found = store.snapshot().get("w2")
    assert found is not None
    assert (found.state, found.ejected_until) == (State.ACTIVE, 0.0)


def test_a_tenth_of_many_may_be(store: FleetStore) -> None:
    workers = [Worker(store, f"w{n}") for n in range(20)]
    for worker in workers[1:5]:
        worker.fail(5)
    workers[0].succeed(90)
    for worker in workers[1:5]:
        worker.ejecting.look()
    ejected = [i.id for i in store.snapshot().instances if i.ejected_until]
    assert ejected == ["w1", "w2"]


def test_what_this_instance_did_itself_is_no_evidence(fleet: list[Worker]) -> None:
    fleet[0].succeed(50)
    fleet[0].fail(5)
    assert isinstance(fleet[0].ejecting.look(), Nothing)


def test_a_success_between_the_failures_ends_the_row(fleet: list[Worker]) -> None:
    fleet[0].fail(4)
    fleet[0].succeed(1)
    fleet[0].fail(4)
    fleet[1].succeed(10)
    assert isinstance(fleet[0].ejecting.look(), Nothing)


def test_a_new_process_begins_anew(store: FleetStore, fleet: list[Worker]) -> None:
    fleet[0].fail(5)
    fleet[1].succeed(10)
    fleet[0].ejecting.look()
    Process(store, "w1")
    found = store.snapshot().get("w1")
    assert found is not None
    assert (found.ejected_until, found.ejections, found.ejected_why) == (0.0, 0, "")


def test_who_has_lost_the_name_is_not_judged_and_goes_on(fleet: list[Worker]) -> None:
    fleet[0].fail(5)
    fleet[1].succeed(10)
    fleet[0].tenure.epoch += 1
    fleet[0].ejecting.look_safely()
    assert not fleet[0].tenure.suspended


def test_without_the_broker_nobody_is_suspended(own_server: Server) -> None:
    worker = Worker(new_store(own_server.url), "w1")
    worker.fail(5)
    own_server.kill()
    assert worker.tenure.suspended
    worker.ejecting.look_safely()
    assert not worker.tenure.suspended


# how healthy it is, by the same report


def by_slowness(worker: Worker, seconds: float, count: int = 10) -> None:
    """So many tasks end, and it looks."""
    for _ in range(count):
        worker.tally.success(PAY, seconds)
    worker.ejecting.look()


@pytest.fixture
def learnt(fleet: list[Worker], monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """Three that know how long their tasks take: ten minutes have gone by on their clocks."""
    clock = FakeClock()
    monkeypatch.setattr("nxs_tasks.worker.ejecting.SYSTEM", clock)
    for worker in fleet:
        worker.ejecting = Ejecting(worker.ejecting._store, worker.tenure, worker.tally, knobs())
        worker.tenure.state = State.ACTIVE
    for _ in range(120):
        clock.advance(5)
        for worker in fleet:
            by_slowness(worker, 0.1)
    return fleet


def test_who_is_slow_says_so(learnt: list[Worker]) -> None:
    slow = learnt[0]
    assert slow.tenure.unhealthy == ""
    by_slowness(slow, 2.0, count=200)
    assert "shop.pay takes 1.9 s (p95 of 320), 0.1 s before" in slow.tenure.unhealthy
    assert "elsewhere as before" in slow.tenure.unhealthy
    by_slowness(learnt[1], 0.1)
    assert learnt[1].tenure.unhealthy == ""


def test_what_is_slow_everywhere_is_nobodys_fault(learnt: list[Worker]) -> None:
    # One after the other tells of it, and whoever is first is alone with it until then.
    for worker in learnt * 2:
        by_slowness(worker, 2.0, count=9000)
    assert [worker.tenure.unhealthy for worker in learnt] == ["", "", ""]


def test_what_fails_here_alone_now_and_then_is_told(learnt: list[Worker]) -> None:
    sick = learnt[0]
    for _ in range(20):
        sick.fail(2)
        sick.succeed(4)
    assert "shop.pay fails 40 times of" in sick.tenure.unhealthy
    assert "0 of" in sick.tenure.unhealthy


def test_without_the_broker_the_verdict_stays(own_server: Server) -> None:
    worker = Worker(new_store(own_server.url), "w1")
    worker.tenure.unhealthy = "as it was"
    worker.tally.success(PAY, 0.1)
    own_server.kill()
    worker.ejecting.look_safely()
    assert worker.tenure.unhealthy == "as it was"
