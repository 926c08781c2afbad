"""A pool without processes answers for every job."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from celery import Celery
from celery.concurrency import get_implementation

from nxs_tasks.worker.escapes import tell_what_escapes


def nothing() -> None:
    """A task."""


def broken(name: str, *args: Any) -> Any:
    """As Celery's tracer does with a body that it cannot read."""
    raise LookupError(f"unreadable: {name} {args}")


def whole(name: str, *args: Any) -> Any:
    """As Celery's tracer answers."""
    return 0, (name, args), 0.5


@pytest.mark.parametrize("kind", ["threads", "solo"])
def test_an_error_is_told_as_the_failure_of_the_task(kind: str) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    app = Celery("t", broker="memory://", backend="cache+memory://")
    task = app.task(nothing, name="t.nothing")
    pool = get_implementation(kind)(limit=1, app=app)
    pool.start()
    tell_what_escapes(pool, app.tasks)

    def answer_of(trace: Any) -> Any:
        pool.apply_async(trace, args=(task.name, 1), callback=answers.put)
        return answers.get(timeout=10)

    try:
        with pytest.warns(RuntimeWarning, match="outside body"):
            failed, info, runtime = answer_of(broken)
        assert (failed, runtime) == (1, 0.0)
        assert "unreadable: t.nothing (1,)" in str(info.exception)
        assert answer_of(whole) == (0, (task.name, (1,)), 0.5)
    finally:
        pool.stop()


def test_a_pool_of_processes_needs_nothing() -> None:
    pool = get_implementation("prefork")(limit=1)
    tell_what_escapes(pool, {})
    assert "apply_async" not in vars(pool)
