"""Real workers that are cordoned, drained, ended, frozen, cut off; and what their probes say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks import lifesign
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.lifesign import Sign, Verdict
from nxs_tasks.model.state import State
from nxs_tasks.store.cordons import Cordons
from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import PATIENCE_S, Live, Process

pytest_plugins = ["tests.integration.live_fixtures"]

FIRST, SECOND = "w1@t", "w2@t"


@pytest.fixture
def ledger(live: Live) -> Iterator[Ledger]:
    with a_ledger(live) as ledger:
        yield ledger


def two_workers(ledger: Ledger) -> tuple[Process, Process]:
    """Both ACTIVE; the first has two slots."""
    ledger.live.control_plane()
    first, second = ledger.worker(FIRST, 2), ledger.worker(SECOND, 1)
    ledger.live.until_state(State.ACTIVE, FIRST, SECOND)
    return first, second


def start_on(ledger: Ledger, name: str, task: Any, *args: Any) -> Any:
    """Have an instance start a task: all others take nothing meanwhile."""
    store, live = ledger.live.store, ledger.live
    others = [i for i in live.snapshot().instances if i.id != name]
    for other in others:
        Cordons(store).cordon(other, "by the test")
    before = live.instance(name).inflight or 0
    result = task.apply_async(args)
    live.until(lambda: (live.instance(name).inflight or 0) > before, f"{name} to take it")
    for other in others:
        Cordons(store).uncordon(live.instance(other.id), "by the test")
    return result


def sign_of(live: Live, name: str) -> Sign:
    return lifesign.read(lifesign.path_of(live.env["NXS_STATE_DIR"], "default", name))


def verdict_of(live: Live, name: str) -> Verdict:
    sign = sign_of(live, name)
    return lifesign.judge(sign, there=lifesign.is_there(sign), now=SYSTEM.monotonic())


def test_a_drained_worker_gives_away_what_it_can_and_ends(ledger: Ledger) -> None:
    live, tasks = ledger.live, ledger.tasks
    first, _ = two_workers(ledger)
    moving = start_on(ledger, FIRST, tasks.steps, 3)
    staying = start_on(ledger, FIRST, tasks.until, "enough")
    ledger.client.set(f"allowed:{moving.id}", 1)
    live.until(lambda: ledger.times("step 0")[moving.id] == 1, "the first step")
    start_on(ledger, SECOND, tasks.until, "second is free")
    waiting = [tasks.run.delay() for _ in range(3)]
    for _ in waiting:
        ledger.client.lmove("celery", live.store.keys.own_queue(FIRST), "RIGHT", "LEFT")
    live.until(lambda: live.instance(FIRST).queued == 3, "three that wait for it")
    draining = live.start(
        "drain", "nxs_tasks.cli", "-A", "tests.integration.ledger_fleet",
        "drain", "w1", "--wait", "--for", "new kernel",
    )  # fmt: skip
    live.until_state(State.LEAVING, FIRST)
    live.until(lambda: live.store.client.llen("celery") == 3, "what waited, for everybody")
    ledger.client.set("second is free", 1)
    live.until(lambda: all(ledger.times()[w.id] == 1 for w in waiting), "what waited, elsewhere")
    asked = live.store.keys.checkpoint(moving.id)
    live.until(lambda: bool(ledger.client.hget(asked, "move_of")), "it to be asked to move")
    ledger.client.set(f"allowed:{moving.id}", 3)
    live.until(lambda: ledger.times("end")[moving.id] == 1, "the end of what moved")
    where = {e.what for e in ledger.entries("step") if e.task_id == moving.id}
    assert {f"step 0 {FIRST}", f"step 2 {SECOND}"} <= where
    assert all(ledger.times(f"step {n}")[moving.id] == 1 for n in range(3))
    assert draining.exit_code is None, "a task still runs there"
    assert live.instance(FIRST).state is State.LEAVING
    ledger.client.set("enough", 1)
    assert draining.wait() == 0
    assert first.wait() == 0
    assert "LEAVING: 1 held" in draining.log
    assert f"{FIRST} is GONE" in draining.log
    ledger.until_idle()
    assert ledger.times()[staying.id] == 1
    told = live.nxs("story", FIRST).stdout
    assert "drained by" in told
    assert "new kernel" in told
    assert live.instance(FIRST).cordoned == "", "a drain ends with the process"


def test_a_signal_asks_what_runs_to_go_on_elsewhere(ledger: Ledger) -> None:
    live, tasks = ledger.live, ledger.tasks
    first, _ = two_workers(ledger)
    moving = start_on(ledger, FIRST, tasks.steps, 1000)
    first.signal(signal.SIGTERM)
    live.until_state(State.LEAVING, FIRST)
    # It may come to its first checkpoint later than the shutdown does.
    ledger.client.set(f"allowed:{moving.id}", 1)
    live.until(lambda: ledger.times("step 0")[moving.id] == 1, "the first step")
    asked = live.store.keys.checkpoint(moving.id)
    live.until(lambda: bool(ledger.client.hget(asked, "move_of")), "it to be asked to move")
    ledger.client.set(f"allowed:{moving.id}", 1000)
    assert first.wait() == 0
    live.until(lambda: ledger.times("end")[moving.id] == 1, "its end, elsewhere")
    assert all(ledger.times(f"step {n} ")[moving.id] == 1 for n in range(1000))


def test_a_drain_that_takes_too_long_says_what_it_waits_for(ledger: Ledger) -> None:
    live, tasks = ledger.live, ledger.tasks
    two_workers(ledger)
    start_on(ledger, FIRST, tasks.until, "enough")
    done = live.nxs("drain", FIRST, "--wait", "--timeout", "3")
    assert done.returncode == 3
    assert "not GONE within 3 s: " in done.stdout
    assert "1 held" in done.stdout
    ledger.client.set("enough", 1)
    live.until_state(State.GONE, FIRST)


def test_a_worker_without_remote_control_is_drained_too(ledger: Ledger) -> None:
    live = ledger.live
    live.env["LEDGER_CONF"] = '{"worker_enable_remote_control": false}'
    first, _ = two_workers(ledger)
    assert live.nxs("drain", FIRST).returncode == 0
    assert first.wait() == 0
    live.until_state(State.GONE, FIRST)


def test_who_is_cordoned_rests_through_a_restart_until_it_is_taken_back(ledger: Ledger) -> None:
    live, tasks = ledger.live, ledger.tasks
    first, _ = two_workers(ledger)
    busy = start_on(ledger, SECOND, tasks.until, "enough")
    assert live.nxs("cordon", "w1", "--for", "a look at its disk").returncode == 0
    live.until(lambda: bool(sign_of(live, FIRST).cordoned), "its life sign to say so")
    assert verdict_of(live, FIRST).not_live == ""
    assert "a look at its disk" in verdict_of(live, FIRST).not_ready
    assert "a look at its disk" in live.nxs("status").stdout
    waiting = tasks.run.delay()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    ledger.worker(FIRST, 2)
    live.until_state(State.ACTIVE, FIRST)
    assert ledger.times()[waiting.id] == 0
    assert live.nxs("uncordon", "w1").returncode == 0
    live.until(lambda: ledger.times()[waiting.id] == 1, "it to take what waits")
    assert ledger.times("end")[busy.id] == 0, "nobody else had a slot"
    ledger.client.set("enough", 1)
    ledger.until_idle()


def test_a_probe_tells_busy_cut_off_frozen_and_dead_apart(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, tasks = ledger.live, ledger.tasks
    live.control_plane()
    worker = ledger.worker(FIRST, 1)
    live.until(lambda: verdict_of(live, FIRST).not_ready == "", "it to be ready")
    start_on(ledger, FIRST, tasks.until, "enough")
    live.until(lambda: sign_of(live, FIRST).running == 1, "its slot taken")
    told = live.nxs("probe", "ready", FIRST)
    assert (told.returncode, told.stdout) == (0, f"{FIRST} is ready (ACTIVE, 1 of 1 slots)\n")
    control = live.nxs("probe", "ready", "control")
    assert (control.returncode, control.stdout) == (
        0,
        "control@t is ready (CONTROL, 0 of 2 slots)\n",
    )

    live.server.kill()
    live.until(
        lambda: "the broker does not answer" in live.nxs("probe", "ready", FIRST).stdout,
        "the probe to see that the broker is away",
    )
    assert live.nxs("probe", "live", FIRST).returncode == 0, "it waits for its broker"
    assert live.nxs("probe", "live", "control").returncode == 0
    live.server.start()
    live.until(lambda: verdict_of(live, FIRST).not_ready == "", "it to be ready again")
    ledger.client.set("enough", 1)
    live.until(lambda: sign_of(live, FIRST).running == 0, "its slot free")

    monkeypatch.setattr(lifesign, "STILL_AFTER_S", 2.0)
    live.until(lambda: verdict_of(live, FIRST).not_live == "", "it to be live")
    tasks.app.control.broadcast("stall", arguments={"seconds": 15.0}, destination=[FIRST])
    live.until(
        lambda: "its event loop stands still" in verdict_of(live, FIRST).not_live, "the stall"
    )
    live.until(lambda: verdict_of(live, FIRST).not_live == "", "the end of the stall")

    worker.signal(signal.SIGSTOP)
    path = lifesign.path_of(live.env["NXS_STATE_DIR"], "default", FIRST)
    os.utime(path, (SYSTEM.now() - 60, SYSTEM.now() - 60))
    frozen = sign_of(live, FIRST)
    lifesign.write(path, frozen.having(written=frozen.written - 60))
    os.utime(path, (SYSTEM.now() - 60, SYSTEM.now() - 60))
    told = live.nxs("probe", "live", "w1")
    assert told.returncode == 1
    assert "is frozen: no sign of life for 6" in told.stdout
    worker.signal(signal.SIGCONT)
    live.until(lambda: live.nxs("probe", "live", "w1").returncode == 0, "it awake")

    worker.kill()
    told = live.nxs("probe", "live", "w1")
    assert (told.returncode, told.stdout) == (
        1,
        f"{FIRST} is not live: its process {worker.pid} is gone\n",
    )


def test_a_worker_that_waits_for_its_broker_at_the_start_is_live(ledger: Ledger) -> None:
    live = ledger.live
    live.server.kill()
    live.worker(FIRST, 1, app="tests.integration.ledger_fleet")

    def told(question: str) -> tuple[int, str]:
        done = live.nxs("probe", question)
        return done.returncode, done.stdout

    assert wait_until(lambda: told("live")[0] == 0, PATIENCE_S)
    assert told("live") == (0, f"{FIRST} is live (STARTING)\n")
    assert told("ready") == (1, f"{FIRST} is not ready: it starts\n")
    live.server.start()
    live.until(lambda: "JOINING" in told("ready")[1], "it to join")


def test_a_worker_that_ends_takes_its_sign_away(ledger: Ledger) -> None:
    live = ledger.live
    worker = ledger.worker(FIRST, 1)
    assert sign_of(live, FIRST).pid == worker.pid
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert lifesign.paths(live.env["NXS_STATE_DIR"]) == []
    told = live.nxs("probe")
    assert told.returncode == 2
    assert "no worker of a fleet has left a sign of life in" in told.stderr
