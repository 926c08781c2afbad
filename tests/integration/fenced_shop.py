"""The app of the tests of fencing: tasks that tell when they start and end when they are told."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Task

from nxs_tasks import Fleet
from nxs_tasks.clock import wait_until
from nxs_tasks.store import connect
from nxs_tasks.store.token import parse
from tests.integration.shop import URL, add, app, fail, flaky, total

__all__ = ["add", "app", "fail", "flaky", "fleet", "total"]

fleet = Fleet(app)
#: A list: `TASK ID:NODE` for each start. What the tests know of executions, apart from results.
STARTS = "test:starts"
#: A list: whatever else tasks tell.
SAID = "test:said"
#: Longest time for which a task waits to be told to end, s.
LONGEST_S = 120.0


def go(node: str) -> str:
    """Key that a test sets to have the tasks of a node end."""
    return f"test:go:{node}"


def _node(request: Any) -> str:
    """Who holds the task's message."""
    token = parse(request.properties["delivery_tag"])
    return "nobody" if token is None else token.instance


def _start(request: Any) -> str:
    client, node = connect(URL), _node(request)
    client.rpush(STARTS, f"{request.id}:{node}")
    wait_until(lambda: bool(client.exists(go(node))), LONGEST_S)
    return node


@app.task(name="fenced.hold", bind=True)
def hold(self: Task, number: int = 0) -> str:
    """Runs until it is told to end; returns the node."""
    return _start(self.request)


@app.task(name="fenced.lead", bind=True)
def lead(self: Task) -> str:
    """The same, holding a lock."""
    with fleet.lock("till", wait=LONGEST_S) as lock:
        connect(URL).rpush(SAID, f"{_node(self.request)} has {lock.token}")
        return _start(self.request)


@app.task(name="fenced.after", bind=True)
def after(self: Task, node: Any) -> Any:
    """A successor: tells by whom it was sent."""
    connect(URL).rpush(SAID, f"after {node}")
    return node


@app.task(name="fenced.handle")
def handle(task_id: str) -> None:
    """An error handler."""
    connect(URL).rpush(SAID, f"failed {task_id}")


@app.task(name="fenced.progress", bind=True)
def progress(self: Task) -> str:
    """Tells how far it is."""
    self.update_state(state="PROGRESS", meta={"percent": 50})
    return str(self.AsyncResult(self.request.id).state)


@app.task(name="fenced.early", acks_late=False)
def early() -> str:
    """Its message is acknowledged before it runs."""
    return "early"


@app.task(name="fenced.die", reject_on_worker_lost=False)
def die() -> None:
    """Its pool process dies, and it is not to be run again."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="fenced.die_refused", reject_on_worker_lost=False, acks_on_failure_or_timeout=False)
def die_refused() -> None:
    """The same, and Celery refuses its message instead of acknowledging it."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="fenced.slow", time_limit=1)
def slow() -> None:
    """Takes longer than it may."""
    time.sleep(LONGEST_S)  # noqa: TID251 - what a task of a user would do
