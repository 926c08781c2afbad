"""Real workers of every kind of pool: all that Celery does with results works as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError

from nxs_tasks.model.state import State
from tests.integration.fenced_live import SHOP, Told, fenced_app
from tests.integration.live import PATIENCE_S, Live, live_fleet

NODE = "w1@t"


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def works(pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One worker with that pool."""
    with live_fleet(tmp_path_factory.mktemp(pool)) as live:
        live.control_plane()
        live.worker(NODE, 1 if pool == "solo" else 2, "-P", pool, app=SHOP)
        live.until_state(State.ACTIVE, NODE)
        yield live


@pytest.fixture
def tasks(works: Live) -> Iterator[Any]:
    """The app's module, against that fleet."""
    with fenced_app(works) as module:
        Told(works, module).forget(NODE)
        yield module


def test_results_errors_and_retries(tasks: Any) -> None:
    assert tasks.add.delay(1, 2).get(timeout=PATIENCE_S) == 3
    with pytest.raises(ValueError, match="as asked"):
        tasks.fail.delay().get(timeout=PATIENCE_S)
    assert tasks.flaky.delay(2).get(timeout=PATIENCE_S) == 2
    assert tasks.progress.delay().get(timeout=PATIENCE_S) == "PROGRESS"
    assert tasks.early.delay().get(timeout=PATIENCE_S) == "early"


def test_chains_groups_and_chords(tasks: Any) -> None:
    assert chain(tasks.add.s(1, 1), tasks.add.s(5))().get(timeout=PATIENCE_S) == 7
    assert group(tasks.add.s(n, n) for n in range(9))().get(timeout=PATIENCE_S) == [
        2 * n for n in range(9)
    ]
    summed = chord(tasks.add.s(n, n) for n in range(9))(tasks.total.s())
    assert summed.get(timeout=PATIENCE_S) == 72
    nested = chain(group(tasks.add.s(n, 1) for n in range(3)), tasks.total.s(), tasks.add.s(1))()
    assert nested.get(timeout=PATIENCE_S) == 7


def test_error_handlers_and_failed_chords(works: Live, tasks: Any) -> None:
    failed = tasks.fail.apply_async(link_error=tasks.handle.s())
    with pytest.raises(ValueError, match="as asked"):
        failed.get(timeout=PATIENCE_S)
    works.until(lambda: Told(works, tasks).said() == [f"failed {failed.id}"], "the error handler")
    body = chord([tasks.add.s(1, 1), tasks.fail.s()])(tasks.total.s())
    with pytest.raises(Exception, match="as asked"):
        body.get(timeout=PATIENCE_S)


def test_a_revoked_task_says_so(works: Live, tasks: Any) -> None:
    expired = tasks.add.apply_async((1, 2), expires=-1)
    with pytest.raises(TaskRevokedError):
        expired.get(timeout=PATIENCE_S)


@pytest.mark.parametrize("name", ["die", "die_refused"])
def test_a_pool_process_that_dies(pool: str, works: Live, tasks: Any, name: str) -> None:
    """The main process reports it, after it has acknowledged the message in stock Celery."""
    if pool != "prefork":
        pytest.skip("there is no process to lose")
    result = getattr(tasks, name).apply_async(link_error=tasks.handle.s())
    with pytest.raises(WorkerLostError):
        result.get(timeout=PATIENCE_S)
    works.until(lambda: Told(works, tasks).said() == [f"failed {result.id}"], "the error handler")
    works.until(lambda: works.instance(NODE).inflight == 0, "the message acknowledged")


def test_a_time_limit(pool: str, works: Live, tasks: Any) -> None:
    if pool != "prefork":
        pytest.skip("only a process can be ended")
    with pytest.raises(TimeLimitExceeded):
        tasks.slow.delay().get(timeout=PATIENCE_S)
    works.until(lambda: works.instance(NODE).inflight == 0, "the message acknowledged")


def test_a_message_that_is_taken_from_a_task_that_runs(pool: str, works: Live, tasks: Any) -> None:
    """Nothing is stored, and the slot works on."""
    result = tasks.hold.delay()
    works.until(lambda: len(Told(works, tasks).starts()) == 1, "the task to run")
    [key] = works.store.client.keys(f"nxs:{{default}}:inflight:{NODE}:*")
    works.store.client.delete(key)
    Told(works, tasks).end(NODE)
    log = works.directory / f"{NODE}.log"
    refusal = f"result of fenced.hold[{result.id}] refused: the message was taken from this process"
    works.until(lambda: refusal in log.read_text(), "the refusal in the worker's log")
    assert result.state == "PENDING"
    slots = 1 if pool == "solo" else 2
    again = [tasks.add.delay(n, n) for n in range(2 * slots)]
    assert [r.get(timeout=PATIENCE_S) for r in again] == [2 * n for n in range(2 * slots)]
    works.until(lambda: works.instance(NODE).inflight == 0, "nothing held")
