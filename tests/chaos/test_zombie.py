"""A worker whose main process is frozen, with its connections open and its pool at work."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psutil
import pytest

from nxs_tasks.model.state import State
from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import Live, Process

pytest_plugins = ["tests.integration.live_fixtures"]
pytestmark = pytest.mark.chaos

#: Short, so that a test need not take minutes; in the order that the settings demand.
TIMES = {
    "NXS_HEARTBEAT_PERIOD": "0.5",
    "NXS_JOIN_PERIOD": "0.3",
    "NXS_LIFECYCLE_PERIOD": "0.5",
    "NXS_GONE_AFTER": "1.5",
    "NXS_SILENT_AFTER": "1.5",
    "NXS_ZOMBIE_AFTER": "2",
    "NXS_EVICT_AFTER": "5",
}


@pytest.fixture
def ledger(live: Live) -> Iterator[Ledger]:
    live.env |= TIMES
    with a_ledger(live) as ledger:
        live.control_plane()
        yield ledger


def pool_of(worker: Process) -> set[int]:
    return {child.pid for child in psutil.Process(worker.pid).children()}


def held_by(ledger: Ledger, name: str) -> bool:
    return bool(ledger.live.instance(name).inflight)


def test_a_zombie_that_wakes_in_time_keeps_its_work(ledger: Ledger) -> None:
    frozen = ledger.worker("w1@t", 1)
    ledger.worker("w2@t", 1)
    ledger.live.until_state(State.ACTIVE, "w1@t", "w2@t")
    both = [ledger.tasks.until.delay("go") for _ in range(2)]
    ledger.live.until(lambda: len(ledger.times()) == 2, "both to run")
    pool = pool_of(frozen)
    frozen.signal(signal.SIGSTOP)
    ledger.live.until_state(State.ZOMBIE, "w1@t")
    frozen.signal(signal.SIGCONT)
    ledger.live.until_state(State.ACTIVE, "w1@t")
    assert ledger.live.instance("w1@t").epoch == 1
    assert held_by(ledger, "w1@t")
    ledger.client.set("go", 1)
    ledger.live.until(lambda: all(task.ready() for task in both), "both to be done")
    ledger.until_idle()
    assert ledger.times() == ledger.times("end") == {task.id: 1 for task in both}
    assert pool_of(frozen) == pool


def test_a_zombie_that_wakes_too_late_finds_its_work_with_another(ledger: Ledger) -> None:
    frozen = ledger.worker("w1@t", 2)
    ledger.live.until_state(State.ACTIVE, "w1@t")
    long, short = [ledger.tasks.until.delay(key) for key in ("go long", "go short")]
    ledger.live.until(lambda: set(ledger.times()) == {long.id, short.id}, "both to run")
    processes = {entry.task_id: entry.pid for entry in ledger.entries("start")}
    ledger.worker("w2@t", 2)
    frozen.signal(signal.SIGSTOP)
    ledger.live.until_state(State.GONE, "w1@t")
    ledger.live.until(lambda: ledger.times() == {long.id: 2, short.id: 2}, "both to run again")
    ledger.client.set("go short", 1)
    ledger.live.until(lambda: ledger.times("end") == {short.id: 2}, "the short one to end twice")
    ledger.live.until(short.ready, "its result")

    frozen.signal(signal.SIGCONT)
    ledger.live.until_state(State.ACTIVE, "w1@t", "w2@t")
    assert ledger.live.instance("w1@t").epoch == 2
    ledger.live.until(lambda: not psutil.pid_exists(processes[long.id]), "the stale process to end")
    assert "was given to another instance meanwhile" in frozen.log
    ledger.live.until(lambda: "an acknowledgement is refused" in frozen.log, "a refusal")

    more = [ledger.tasks.run.delay() for _ in range(20)]
    ledger.live.until(lambda: all(task.ready() for task in more), "new work to be done")
    on_frozen = {e.pid for e in ledger.entries("start")} & pool_of(frozen)
    assert on_frozen, "some of it by the woken one"
    ledger.client.set("go long", 1)
    ledger.live.until(long.ready, "the long one to be done on the other")
    ledger.until_idle()
    assert ledger.times("end")[long.id] == 1, "the stale process did not end it"
    assert {ledger.times()[task.id] for task in more} == {1}
    assert {long.get(), short.get()} == {"done"}
    assert frozen.exit_code is None
