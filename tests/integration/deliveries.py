"""Tasks that run in this process by a delivery made by hand, through Celery's own tracer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.app.trace import trace_task
from kombu.utils.uuid import uuid

from nxs_tasks import Fleet
from nxs_tasks.store import FleetStore
from nxs_tasks.store.guard import held_in
from nxs_tasks.store.token import Token
from tests.conftest import JSON

TOKEN = Token("w@t", 4, 7)


def hold(store: FleetStore, token: Token = TOKEN) -> None:
    """Have a message lie in the in-flight hash of its process."""
    store.client.hset(held_in(store, token), str(token), '[{}, "", "celery"]')


def take_away(store: FleetStore, token: Token = TOKEN) -> None:
    """Take the message from its process, as the rescue does."""
    assert store.client.hdel(held_in(store, token), str(token)) == 1


def request(task: Any, token: Token | str = TOKEN, **fields: Any) -> dict[str, Any]:
    """What Celery's worker hands to the tracer."""
    return {
        "task": task.name,
        "hostname": "w@t",
        "delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": False},
        "properties": {"delivery_tag": str(token)},
        "is_eager": False,
        **fields,
    }


def run(task: Any, *args: Any, id: str = "", token: Token | str = TOKEN, **fields: Any) -> Any:
    """Run a task as a worker's pool does; what Celery's tracer returns for it."""
    id = id or uuid()
    task.__trace__ = None
    asked = request(task, token, id=id, **fields)
    return trace_task(task, id, args, {}, asked, app=task.app)


def stored(fleet: Fleet, id: str) -> dict[str, Any] | None:
    """What lies in the result backend for a task."""
    text = fleet.app.backend.client.get(fleet.app.backend.get_key_for_task(id))
    return None if text is None else dict(json.loads(text))


@contextmanager
def stock_app(url: str, **conf: Any) -> Iterator[Any]:
    """The same app without a fleet."""
    app = Celery("shop", broker=url, backend=conf.pop("backend", url), set_as_current=False)
    app.conf.update({**JSON, **conf})
    try:
        yield app
    finally:
        app.close()


def context(task: Any, token: Token | str = TOKEN, **fields: Any) -> Context:
    """A request as Celery hands it to its backends."""
    return Context(request(task, token, **fields), args=(), kwargs={})


class Shop:
    """An app with a fleet and a few tasks, and what they did beside."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.app = fleet, fleet.app
        self.store = fleet.runtime.store()
        self.done: list[Any] = []

        @self.app.task(name="shop.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        @self.app.task(name="shop.fail", shared=False)
        def fail() -> None:
            raise ValueError("as asked")

        @self.app.task(name="shop.total", shared=False)
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @self.app.task(name="shop.note", shared=False)
        def note(task_id: str) -> None:
            self.done.append(task_id)

        @self.app.task(name="shop.report", shared=False, bind=True)
        def report(task: Any) -> str:
            task.update_state(state="PROGRESS", meta={"percent": 50})
            self.done.append("went on")
            return "done"

        @self.app.task(name="shop.again", shared=False, bind=True)
        def again(task: Any) -> None:
            raise task.retry(countdown=0)

        self.add, self.fail, self.total, self.note = add, fail, total, note
        self.report, self.again = report, again

    def waiting(self) -> list[dict[str, Any]]:
        """Messages in the shared queue."""
        key = self.store.wire.list_of("celery", 0)
        return [json.loads(m) for m in self.store.client.lrange(key, 0, -1)]


def chord_of(shop: Shop) -> Any:
    """The body of a chord."""
    return shop.total.s().set(task_id="body")


def parts(shop: Shop, group: str) -> int:
    """Parts of a chord that are counted."""
    return int(shop.store.client.scard(f"celery-taskset-meta-{group}.d"))
