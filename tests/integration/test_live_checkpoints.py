"""Running tasks that go on elsewhere, with real workers, and with workers that are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import pytest
from kombu.utils.uuid import uuid

from nxs_tasks.model.decision import Transition
from nxs_tasks.model.state import Event, State
from nxs_tasks.store.homes import homes
from nxs_tasks.store.inflight import Inflight
from nxs_tasks.store.message import read
from tests.integration.ledger import Ledger
from tests.integration.live import PATIENCE_S, Process

pytest_plugins = ["tests.integration.ledger_fixtures"]

COUNT = 6
SOURCE, TARGET = "w1@t", "w2@t"


class Steps:
    """One task of so many steps, which does each when it is allowed."""

    def __init__(self, ledger: Ledger, *arguments: Any, **options: Any) -> None:
        self.ledger = ledger
        self.result = ledger.tasks.steps.apply_async((COUNT, *arguments), **options)
        self.id = str(self.result.id)

    def allow(self, count: int = COUNT) -> None:
        """Let it do so many in all."""
        self.ledger.client.set(f"allowed:{self.id}", count)

    def told(self) -> list[tuple[str, str, int]]:
        """`open`, a step's number or `end`, where, and by which process, in order."""
        found = []
        for entry in self.ledger.entries():
            if entry.task_id == self.id:
                what, _, where = entry.what.removeprefix("step ").partition(" ")
                found.append((what, where, entry.pid))
        return found

    def done(self) -> list[int]:
        return [int(what) for what, _, _ in self.told() if what.isdigit()]

    def until_done(self, number: int) -> None:
        self.ledger.live.until(lambda: number in self.done(), f"step {number}")

    def until_saved(self, number: int) -> None:
        key = self.ledger.live.store.keys.checkpoint(self.id)

        def saved() -> bool:
            return bool(self.ledger.client.hget(key, "state") == f'{{"n":{number}}}')

        self.ledger.live.until(saved, f"step {number - 1} saved")

    def until_opened(self, where: str, times: int = 1) -> None:
        def opened() -> int:
            return [(w, at) for w, at, _ in self.told()].count(("open", where))

        self.ledger.live.until(lambda: opened() >= times, f"opened on {where}")

    def places(self) -> list[str]:
        """Where it ran, one after the other."""
        return [where for what, where, _ in self.told() if what == "open"]

    def check(self, *, again: int = 0) -> None:
        """All steps were done in order, at most `again` of them twice, and never two at once."""
        assert self.result.get(timeout=PATIENCE_S) == "done"
        self.ledger.until_idle()
        counted = Counter(self.done())
        assert sorted(counted) == list(range(COUNT))
        assert counted.total() - COUNT <= again
        assert self.done() == sorted(self.done())
        # Once another process has it, the one before does nothing more.
        runs: list[int] = []
        for what, _, pid in self.told():
            if what == "open":
                runs.append(pid)
            assert pid == runs[-1], self.told()
        assert [what for what, _, _ in self.told()].count("end") == 1
        assert not self.ledger.client.exists(self.ledger.live.store.keys.checkpoint(self.id))
        assert self.ledger.quarantined() == []


def a_worker(ledger: Ledger, name: str, slots: int = 1, *options: str) -> Process:
    """A worker that is ready and ACTIVE. The control plane would say so in a few seconds."""
    before = ledger.live.store.epoch(name)
    process = ledger.worker(name, slots, *options)

    def takes_work() -> bool:
        found = ledger.live.snapshot().get(name)
        return bool(found and found.epoch > before and found.load.consuming)

    ledger.live.until(takes_work, f"{name} takes work")
    found = ledger.live.instance(name)
    ledger.live.store.transition(
        Transition(
            instance=name,
            epoch=found.epoch,
            event=Event.CONFIRMED,
            source=State.JOINING,
            target=State.ACTIVE,
            reason="by hand",
        )
    )
    return process


def send_to(ledger: Ledger, name: str) -> Any:
    """Submit a task by hand into the own queue of an instance; its result."""
    app, task_id = ledger.tasks.app, uuid()
    message = app.amqp.as_task_v2(task_id, "ledger.run")
    with app.connection_for_write() as connection:
        own = ledger.live.store.keys.own_queue(name)
        known = {"headers": message.headers, "exchange": "", "routing_key": own}
        connection.Producer().publish(
            message.body, serializer="json", **known, **message.properties
        )
    return app.AsyncResult(task_id)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("to", [TARGET, None])
def test_a_running_task_moves(ledger: Ledger, pool: str, to: str | None) -> None:
    worker = a_worker(ledger, SOURCE, 1, "-P", pool)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    a_worker(ledger, TARGET, 1, "-P", pool)
    steps.allow(2)
    steps.until_saved(2)
    asked = ledger.tasks.fleet.migrate(steps.result, to)
    assert (asked.holder, asked.new) == (SOURCE, True)
    steps.allow(3)
    steps.until_opened(TARGET)
    steps.allow()
    steps.check()
    assert [where for _, where, _ in steps.told() if where] == [SOURCE] * 4 + [TARGET] * 4
    assert steps.places() == [SOURCE, TARGET]
    assert f"ledger.steps[{steps.id}]" in worker.log
    assert "Traceback" not in worker.log
    source = ledger.live.instance(SOURCE)
    assert (source.failed, source.inflight) == (0, 0), "a move is no failure"
    assert send_to(ledger, SOURCE).get(timeout=PATIENCE_S) == "done", "its slot is free"


def test_from_the_command_line(ledger: Ledger) -> None:
    a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    a_worker(ledger, TARGET)

    def nxs(*arguments: str) -> tuple[int, str]:
        app = ("-A", "tests.integration.ledger_fleet")
        done = ledger.live.command("nxs_tasks.cli", *app, "migrate", *arguments)
        return done.returncode, done.stdout + done.stderr

    assert nxs("t9")[0] == 2
    assert "t9 is not running" in nxs("t9")[1]
    assert nxs(steps.id, "--to", "w9@t")[0] == 2
    assert nxs(steps.id, "--cancel", "--to", TARGET)[0] == 2
    assert nxs(steps.id, "--cancel") == (
        1,
        f"{steps.id} was not asked to move, or has moved already\n",
    )
    line = f"ledger.steps[{steps.id}] stops at its next checkpoint on {SOURCE} and goes on with"
    assert nxs(steps.id) == (0, f"{line} another instance\n")
    assert nxs(steps.id, "--cancel") == (0, f"{steps.id} stays where it is\n")
    steps.allow(1)
    steps.until_saved(1)
    assert nxs(steps.id, "--to", TARGET) == (0, f"{line} {TARGET}\n")
    assert nxs(steps.id, "--to", TARGET) == (0, f"{line} {TARGET} (it was asked before)\n")
    story = ledger.live.nxs("story", steps.id).stdout
    assert "saved 7 bytes" in story
    assert f"to go on with {TARGET} from its next checkpoint" in story
    steps.allow()
    steps.check()
    assert steps.places() == [SOURCE, TARGET]


def test_the_source_is_killed_between_the_question_and_the_stop(ledger: Ledger) -> None:
    """Whoever gets it goes on from the last checkpoint, and the move is still wanted."""
    worker = a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    a_worker(ledger, TARGET)
    steps.allow(2)
    steps.until_saved(2)
    ledger.tasks.fleet.migrate(steps.id, TARGET)
    worker.kill()
    a_worker(ledger, SOURCE)
    ledger.live.until(lambda: len(steps.places()) == 2, "opened again")
    steps.allow()
    steps.check()
    assert steps.places()[-1] == TARGET


def test_the_source_is_killed_right_after_the_stop(ledger: Ledger) -> None:
    """The task has stopped, and the worker's main process has not moved the message yet."""
    worker = a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    a_worker(ledger, TARGET)
    ledger.tasks.fleet.migrate(steps.id, TARGET)
    os.kill(worker.pid, signal.SIGSTOP)
    steps.allow(2)
    key = ledger.live.store.keys.checkpoint(steps.id)
    ledger.live.until(lambda: bool(ledger.client.hexists(key, "stopped")), "stopped")
    assert ledger.held() == 1
    worker.kill()
    assert steps.done() == [0]
    a_worker(ledger, SOURCE)
    steps.allow()
    steps.check()
    assert steps.places()[-1] == TARGET


def test_the_target_is_killed_after_the_arrival(ledger: Ledger) -> None:
    a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    target = a_worker(ledger, TARGET)
    ledger.tasks.fleet.migrate(steps.id, TARGET)
    steps.allow(2)
    steps.until_opened(TARGET)
    steps.until_saved(2)
    steps.allow(3)
    steps.until_done(2)
    target.kill()
    a_worker(ledger, TARGET)
    ledger.live.until(lambda: len(steps.places()) == 3, "opened again")
    steps.allow()
    steps.check(again=1)
    assert steps.places()[:2] == [SOURCE, TARGET]


def test_the_target_is_killed_before_it_takes_it(ledger: Ledger) -> None:
    """It waits at the front of the target's own queue, also for the one that is started again."""
    a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    target = a_worker(ledger, TARGET)
    own = ledger.live.store.keys.own_queue(TARGET)
    busy = ledger.tasks.until.apply_async(("never",))
    ledger.live.until(lambda: ledger.times()[busy.id] == 1, "the target busy")
    behind = send_to(ledger, TARGET)
    ledger.tasks.fleet.migrate(steps.id, TARGET)
    steps.allow(1)
    ledger.live.until(lambda: int(ledger.client.llen(own)) == 2, "waiting at the target")
    first = str(ledger.client.lindex(own, -1))
    assert read(first).task_id == steps.id, "it is the next to be taken"
    target.kill()
    ledger.client.set("never", 1)
    a_worker(ledger, TARGET)
    steps.allow()
    steps.check()
    assert steps.places() == [SOURCE, TARGET]
    assert [r.get(timeout=PATIENCE_S) for r in (busy, behind)] == ["done", "done"]


def test_a_frozen_source_that_wakes_saves_nothing(ledger: Ledger) -> None:
    """Its place was given to another process meanwhile."""
    worker = a_worker(ledger, SOURCE)
    steps = Steps(ledger)
    steps.until_opened(SOURCE)
    steps.allow(2)
    steps.until_saved(2)
    late = steps.told()[0][2]
    # The pool process alone: its main process is given up and dead, and it does not know.
    os.kill(late, signal.SIGSTOP)
    os.kill(worker.pid, signal.SIGSTOP)
    ledger.live.store.client.hset(ledger.live.store.keys.instance(SOURCE), "state", "GONE")
    epoch = ledger.live.instance(SOURCE).epoch
    a_worker(ledger, TARGET)
    store = ledger.live.store
    Inflight(store).give_back(
        SOURCE, epoch, homes(store), dead=True, lost_at=store.now(), lost_holders=3
    )
    steps.until_opened(TARGET)
    steps.allow(3)
    steps.until_saved(3)
    os.kill(late, signal.SIGCONT)
    ledger.live.until(lambda: (str(2), SOURCE, late) in steps.told(), "the late copy has worked")
    steps.allow()
    assert steps.result.get(timeout=PATIENCE_S) == "done"
    mine = [int(what) for what, where, _ in steps.told() if where == SOURCE and what.isdigit()]
    assert mine == [0, 1, 2], "it ends where it would have saved"
    here = [int(what) for what, where, _ in steps.told() if where == TARGET and what.isdigit()]
    assert here == [2, 3, 4, 5]
    os.kill(worker.pid, signal.SIGCONT)


def test_a_retry_goes_on_where_it_was_saved(ledger: Ledger) -> None:
    a_worker(ledger, SOURCE)
    steps = Steps(ledger, 2)
    steps.allow()
    steps.check()
    assert steps.places() == [SOURCE, SOURCE]
