"""An app with a fleet and two tasks, nobody who runs them, and hands to do what workers do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from celery.result import AsyncResult

from nxs_tasks import Fleet
from nxs_tasks.model.shelf import Shelved
from nxs_tasks.store import FleetStore, Keys
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.message import read
from nxs_tasks.store.shelves import entry_text
from tests.conftest import MakeApp, new_store

SHARED = "celery"
OWN = Keys("default").own_queue("w1@t")


class Mailroom:
    """An app with a fleet, its broker, and two tasks."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet = fleet
        self.app: Any = fleet.app
        self.store = new_store(url)
        self.intents = Intents(self.store)
        self.mail: Any = self.task("shop.mail")
        self.pay: Any = self.task("shop.pay")

    def task(self, name: str, **options: Any) -> Any:
        @self.app.task(name=name, shared=False, **options)
        def task(*args: int) -> None: ...

        return task

    def ids(self, key: str = SHARED) -> list[str]:
        """What waits in a list, what is taken next first."""
        texts: Any = self.store.client.lrange(key, 0, -1)
        return [read(text).task_id for text in reversed(texts)]

    def move(self, result: AsyncResult, key: str) -> None:
        """Take the newest message, of this task, from the shared queue to elsewhere."""
        text: Any = self.store.client.lindex(SHARED, 0)
        assert read(text).task_id == result.id
        self.store.client.lmove(SHARED, key, "LEFT", "LEFT")

    def shelve(self, result: AsyncResult, shelf: str) -> None:
        text: Any = self.store.client.lpop(SHARED)
        known = read(text)
        assert known.task_id == result.id
        entry = Shelved(
            id=f"w1@t|1|{known.task_id}",
            at=self.store.now(),
            list=SHARED,
            message=text,
            reason="as asked",
            task_id=known.task_id,
            task=known.task,
        )
        keys = self.store.keys
        self.store.client.hset(keys.shelf(shelf), entry.id, entry_text(entry))
        self.store.client.zadd(keys.shelf_index(shelf), {entry.id: entry.at})

    def hold(self, result: AsyncResult, instance: str = "w1@t", epoch: int = 1) -> None:
        """As a worker does that takes it."""
        text: Any = self.store.client.lpop(SHARED)
        assert read(text).task_id == result.id
        key, token = self.store.keys.inflight(instance, epoch), f"{instance}|{epoch}|1"
        self.store.client.hset(key, token, f'[{text}, "", "{SHARED}"]')
        self.store.client.sadd(self.store.keys.holders(), f"{instance}:{epoch}")

    def dump(self) -> dict[str, Any]:
        """All that is in the broker."""
        found: Any = self.store.client.scan_iter()
        return {key: self.store.client.dump(key) for key in found}


Meanwhile = Callable[[str, Callable[[], Any]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """`meanwhile(script, do)`: somebody does something right before a script runs, once."""

    def arrange(wanted: str, do: Callable[[], Any]) -> None:
        waiting = [do]

        def call(store: FleetStore, script: str, keys: list[str], args: Iterable[Any]) -> Any:
            if script == wanted and waiting:
                waiting.pop()()
            return real(store, script, keys, args)

        real = FleetStore.call
        monkeypatch.setattr(FleetStore, "call", call)

    return arrange


@pytest.fixture
def room(url: str, make_app: MakeApp) -> Mailroom:
    return Mailroom(make_app(url), url)
