"""What a worker holds and knows nothing of is given back; what it runs is not, whatever breaks."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import psutil
import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.strays import give_back_unread
from tests.integration.cable import Cable, a_cable
from tests.integration.holding import Process
from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import PATIENCE_S, Live
from tests.integration.messages import SHARED, message, put, task_ids

pytest_plugins = ["tests.integration.live_fixtures"]

CUTS = int(os.environ.get("STRAYS_CUTS", "8"))
GIVEN_BACK = "known to nobody here: it is given back"


@pytest.fixture
def cable(live: Live) -> Iterator[Cable]:
    with a_cable(live.server.url) as cable:
        yield cable


@pytest.fixture
def ledger(live: Live, cable: Cable) -> Iterator[Ledger]:
    """Its workers reach the server by the cable, and look for strays all the time."""
    beats = {"NXS_HEARTBEAT_PERIOD": "0.3", "NXS_JOIN_PERIOD": "0.3"}
    live.env |= {**beats, "LEDGER_APART_S": "0.5"}
    with a_ledger(live) as ledger:
        live.env["SHOP_BROKER"] = cable.url
        yield ledger


def test_what_was_taken_last_and_never_read_goes_back_before_the_end(store: FleetStore) -> None:
    process = Process(store)
    tenure = Tenure(store, "w1", process.epoch)
    put(store, SHARED, message("a"), message("b"))
    started = process.take()
    tenure.asked = unread = process.take()
    process.is_now(State.LEAVING)
    assert not give_back_unread(tenure, {started, unread})
    assert give_back_unread(tenure, {started})
    assert process.held_ids() == ["a"]
    assert task_ids(store, SHARED) == ["b"]
    assert not give_back_unread(tenure, {started}), "only once"


def let_it_look(ledger: Ledger, times: int = 3) -> None:
    """Wait until the worker had the time to look for strays so often."""
    before = ledger.live.instance("w1@t").beats
    enough = before + 2 * times
    ledger.live.until(lambda: ledger.live.instance("w1@t").beats >= enough, "heartbeats")


def test_a_message_whose_answer_is_lost_is_given_back(ledger: Ledger, cable: Cable) -> None:
    worker = ledger.worker("w1@t", 1)
    cable.lose_answers(about=b"ledger.run")
    task = ledger.tasks.run.delay()
    ledger.live.until(lambda: ledger.held() == 1, "it to be taken")
    cable.cut()
    ledger.live.until(task.ready, "it to run")
    assert GIVEN_BACK in worker.log
    ledger.until_idle()
    assert ledger.times() == {task.id: 1}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_running_task_is_never_given_back(ledger: Ledger, cable: Cable, pool: str) -> None:
    """The event loop stands still, the connection is cut, the task ends meanwhile."""
    worker = ledger.worker("w1@t", 2, "-P", pool)
    tasks = [ledger.tasks.until.delay(key) for key in ("first", "second")]
    ledger.live.until(lambda: len(ledger.times()) == 2, "both to run")
    cable.cut()
    let_it_look(ledger)
    ledger.tasks.app.control.broadcast("stall", arguments={"seconds": 2.5})
    ledger.client.set("first", 1)
    ledger.live.until(lambda: ledger.times("end")[tasks[0].id] == 1, "the first to end")
    let_it_look(ledger)
    ledger.client.set("second", 1)
    ledger.live.until(lambda: all(t.ready() for t in tasks), "both to be done")
    ledger.until_idle()
    assert ledger.times() == {t.id: 1 for t in tasks}
    assert GIVEN_BACK not in worker.log


def test_a_task_whose_end_is_reported_slowly_is_no_stray(ledger: Ledger) -> None:
    """Celery has forgotten it by then, and its message is acknowledged at the end."""
    worker = ledger.worker("w1@t", 2)
    task = ledger.tasks.overdue.delay()
    ledger.live.until(lambda: len(ledger.entries("report")) == 1, "its end to be reported")
    let_it_look(ledger)
    ledger.client.set("reported", 1)
    ledger.until_idle()
    assert task.state == "FAILURE"
    assert len(ledger.entries("report")) == 1, "once"
    assert GIVEN_BACK not in worker.log
    assert "refused" not in worker.log


def test_a_task_on_its_way_into_a_process_is_no_stray(ledger: Ledger, cable: Cable) -> None:
    """Celery forgets it when the connection is lost; the process has it and runs it."""
    worker = ledger.worker("w1@t", 1)
    [child] = psutil.Process(worker.pid).children()
    child.send_signal(signal.SIGSTOP)
    task = ledger.tasks.run.delay()
    ledger.live.until(lambda: "received" in worker.log, "it to be handed over")
    cable.cut()
    ledger.live.until(lambda: "Connection to broker lost" in worker.log, "the loss")
    let_it_look(ledger)
    assert ledger.times() == {}
    child.send_signal(signal.SIGCONT)
    ledger.live.until(task.ready, "it to run")
    ledger.until_idle()
    assert ledger.times() == {task.id: 1}
    assert GIVEN_BACK not in worker.log
    later = ledger.tasks.run.delay()
    ledger.live.until(later.ready, "the slot to be free")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_connection_that_is_cut_again_and_again_makes_nothing_run_twice(
    ledger: Ledger, cable: Cable, pool: str
) -> None:
    worker = ledger.worker("w1@t", 2, "-P", pool)
    tasks = []
    for _ in range(CUTS):
        tasks += [ledger.tasks.run.apply_async(ignore_result=True) for _ in range(40)]
        # A random moment, when one of these is somewhere on its way.
        some = 2 * len(tasks) - random.randrange(10, 70)
        wait_until(lambda: ledger.client.llen("ran") >= some, PATIENCE_S, 0.0)  # noqa: B023
        cable.cut()
    ledger.live.until(lambda: len(ledger.times()) == len(tasks), "all to run")
    ledger.until_idle()
    assert ledger.times() == dict.fromkeys((t.id for t in tasks), 1)
    assert worker.exit_code is None
