"""Every way in which a task or its worker may end: nothing stays held, and nothing is lost."""

from __future__ import annotations

import json
import signal
from typing import Any

import kombu
import pytest
from celery.result import AsyncResult

from nxs_tasks.clock import wait_until
from tests.integration.broken_messages import raw
from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import PATIENCE_S, Live

pytest_plugins = ["tests.integration.ledger_fixtures"]


def states(results: list[AsyncResult]) -> list[str]:
    return [result.state for result in results]


def wait_for(ledger: Ledger, results: list[AsyncResult]) -> None:
    def missing() -> list[str]:
        return [f"{r.name} {r.id} {r.state}" for r in results if not r.ready()]

    wait_until(lambda: not missing(), PATIENCE_S)
    ledger.live.until(lambda: not missing(), f"the ends of {missing()}", patience=0.0)


def ask(ledger: Ledger, command: str, **arguments: Any) -> Any:
    """By remote control."""
    [answer] = ledger.tasks.app.control.broadcast(
        command, arguments=arguments, reply=True, limit=1, timeout=PATIENCE_S
    )
    return answer["w1@t"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_end_of_a_task_lets_go_of_its_message(ledger: Ledger, pool: str) -> None:
    worker = ledger.worker("w1@t", 2, "-P", pool, "--max-tasks-per-child", "3")
    tasks = ledger.tasks
    good = [tasks.run.delay() for _ in range(6)]
    good += [tasks.refuse.delay(3), tasks.again.delay(2, 0.5), tasks.early.delay()]
    good += [tasks.limited.delay() for _ in range(5)]
    others = [tasks.drop.delay(), tasks.ignore.delay(), tasks.run.apply_async((), expires=-5)]
    if pool == "prefork":
        good.append(tasks.soft.delay())
        others.append(tasks.hard.delay())
    wait_for(ledger, [*good, others[0], *others[2:]])
    ledger.until_idle()
    assert set(states(good)) == {"SUCCESS"}
    assert states(others) == ["FAILURE", "PENDING", "REVOKED", "FAILURE"][: len(others)]
    times = ledger.times()
    assert times.pop(good[6].id) == 4, "it was refused three times"
    assert others[2].id not in times
    assert set(times.values()) == {1}
    assert ledger.quarantined() == []
    assert worker.exit_code is None


def test_a_task_that_kills_its_process_is_put_aside_after_three_times(ledger: Ledger) -> None:
    """As the kernel does when memory is short; the others go on."""
    ledger.worker("w1@t", 2)
    killers = [ledger.tasks.die.delay(), ledger.tasks.leave.delay()]
    others = [ledger.tasks.run.delay(0.1) for _ in range(20)]
    wait_for(ledger, others)
    ledger.live.until(lambda: len(ledger.quarantined()) == 2, "both in quarantine")
    ledger.until_idle()
    times = ledger.times()
    assert {times[killer.id] for killer in killers} == {3}
    assert {times[other.id] for other in others} == {1}
    for entry in ledger.quarantined():
        assert entry.reason == "lost its holder 3 times, last w1@t"
        lost = json.loads(entry.message)["headers"]["nxs_lost"]
        assert [loss["instance"] for loss in lost] == ["w1@t"] * 3
    assert set(states(killers)) <= {"PENDING", "FAILURE"}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_over_which_celery_stumbles_costs_no_slot(ledger: Ledger, pool: str) -> None:
    """When it starts it, with a slot taken already; or when it has run, and nobody expects it."""
    worker = ledger.worker("w1@t", 1, "-P", pool)
    touchy = [ledger.tasks.touchy.delay() for _ in range(3)]
    heavy = [ledger.tasks.heavy.delay() for _ in range(3)]
    odd = raw("odd", {"task": "ledger.run"}, parts=[[], {}, {"chain": [{"task": "x"}]}])
    ledger.client.lpush("celery", odd, odd)
    others = [ledger.tasks.run.delay() for _ in range(3)]
    wait_for(ledger, others)
    ledger.until_idle()
    told = {entry.task_id: entry.reason.partition(": ")[0] for entry in ledger.quarantined()}
    assert told == {
        task.id: "cannot be started" for task in [*touchy, *(heavy if pool == "prefork" else [])]
    }
    assert ask(ledger, "jobs") == 0, "the pool waits for none of them"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(
    ledger: Ledger, pool: str
) -> None:
    worker = ledger.worker("w1@t", 2, "-P", pool)
    running = [ledger.tasks.until.delay("go") for _ in range(2)]
    ledger.live.until(lambda: len(ledger.times()) == 2, "both to run")
    waiting = [ledger.tasks.run.delay() for _ in range(5)]
    worker.signal(signal.SIGTERM)
    ledger.live.until(lambda: "Warm shutdown" in worker.log, "it to hear")
    ledger.client.set("go", 1)
    assert worker.wait() == 0
    assert set(states(running)) == {"SUCCESS"}
    assert (ledger.held(), ledger.waiting()) == (0, 5)
    ledger.worker("w2@t", 2, "-P", "solo")
    wait_for(ledger, waiting)
    ledger.until_idle()
    assert set(ledger.times().values()) == {1}


def test_a_cold_shutdown_gives_back_what_ran(ledger: Ledger) -> None:
    worker = ledger.worker("w1@t", 2)
    running = [ledger.tasks.until.delay("go") for _ in range(2)]
    limited = [ledger.tasks.limited.delay() for _ in range(3)]
    ledger.live.until(lambda: len(ledger.times()) == 2, "both to run")
    worker.signal(signal.SIGQUIT)
    worker.wait()
    ledger.client.set("go", 1)
    assert ledger.held() == 0
    ledger.worker("w2@t", 2, "-P", "threads")
    wait_for(ledger, [*running, *limited])
    ledger.until_idle()
    assert set(states([*running, *limited])) == {"SUCCESS"}
    assert {ledger.times()[r.id] for r in running} == {2}
    assert {ledger.times()[r.id] for r in limited} == {1}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_may_read_a_queue_of_its_own(ledger: Ledger, pool: str) -> None:
    """What lies there is no task, and nobody's to judge."""
    ledger.worker("w1@t", 1, "-P", pool)
    with kombu.Connection(ledger.live.server.url) as connection:
        connection.SimpleQueue("mail").put({"hello": "you"})
    assert ledger.tasks.read.delay("mail").get(timeout=PATIENCE_S) == {"hello": "you"}
    ledger.until_idle()
    assert (ledger.quarantined(), ledger.client.llen("mail")) == ([], 0)


@pytest.mark.parametrize("kind", ["aside", "replaced"])
def test_a_unique_key_is_kept_by_what_a_task_sends_in_its_place(ledger: Ledger, kind: str) -> None:
    ledger.worker("w1@t", 2)
    submit = ledger.tasks.fleet.submit
    first = submit(getattr(ledger.tasks, kind), ("go",), unique_key="k")
    ledger.live.until(lambda: len(ledger.entries("start")) == 1, "what it has sent to run")
    ledger.live.until(lambda: ledger.held() == 1, "itself to be over")
    assert submit(ledger.tasks.run, (), unique_key="k").id == first.id
    ledger.client.set("go", 1)
    ledger.until_idle()
    assert {entry.task_id for entry in ledger.entries()} == {first.id}
    assert not list(ledger.client.scan_iter("*unique*"))


def test_remote_control_loses_nothing(live: Live) -> None:
    live.env["LEDGER_CONF"] = json.dumps({"worker_pool_restarts": True})
    with a_ledger(live) as ledger:
        _control(ledger)


def _control(ledger: Ledger) -> None:
    worker = ledger.worker("w1@t", 2, "--autoscale=3,1")
    tasks, control = ledger.tasks, ledger.tasks.app.control
    assert ask(ledger, "ping") == {"ok": "pong"}
    assert ask(ledger, "stats")["broker"]["transport"] == "redis"
    before = [tasks.run.delay(0.1) for _ in range(8)]
    wait_for(ledger, before)

    ask(ledger, "cancel_consumer", queue="celery")
    unconsumed = tasks.run.apply_async(queue="celery")
    assert ask(ledger, "active_queues")[0]["name"] == "nxs.default/w1@t"
    assert (ledger.waiting(), ledger.held()) == (1, 0)
    ask(ledger, "add_consumer", queue="celery")
    wait_for(ledger, [unconsumed])

    ended, *kept = [tasks.until.delay(key) for key in ("never", "go", "go")]
    busy = {ended.id, *(r.id for r in kept)}
    ledger.live.until(lambda: busy <= set(ledger.times()), "every slot to be taken")
    unstarted = [tasks.run.delay() for _ in range(4)]
    ask(ledger, "revoke", task_id=unstarted[0].id)
    ask(ledger, "revoke", task_id=ended.id, terminate=True, signal="SIGKILL")
    ledger.client.set("go", 1)
    wait_for(ledger, [ended, *kept, *unstarted])
    assert states([ended, unstarted[0], *kept]) == ["REVOKED", "REVOKED", "SUCCESS", "SUCCESS"]

    long = [tasks.run.delay(0.2) for _ in range(6)]
    ask(ledger, "pool_restart")
    wait_for(ledger, long)
    ledger.until_idle()
    assert set(states(long)) == {"SUCCESS"}

    last = [tasks.run.delay(0.2) for _ in range(6)]
    control.shutdown(destination=["w1@t"])
    assert worker.wait() == 0
    done = [r for r in last if r.ready()]
    assert (ledger.held(), ledger.waiting()) == (0, len(last) - len(done))
    assert {n for id_, n in ledger.times().items() if id_ in {r.id for r in done}} <= {1}
