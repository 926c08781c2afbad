"""An app with a fleet whose submissions are read from the lists of a real server."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from nxs_tasks import Fleet
from nxs_tasks.clock import FakeClock
from nxs_tasks.model.record import PlacementRecord
from nxs_tasks.store.events import Events
from tests.conftest import add_instance, new_store


class Shop:
    """An app with a fleet and the task shop.pay, and what lies in its broker."""

    def __init__(self, fleet: Fleet, url: str, clock: FakeClock) -> None:
        self.fleet = fleet
        self.app: Any = fleet.app
        self.clock = clock
        self.store = new_store(url)

        @self.app.task(name="shop.pay", shared=False)
        def pay(order: int, how: str = "card") -> None: ...

        self.pay: Any = pay

    def add(self, instance_id: str, **load: Any) -> int:
        return add_instance(self.store, instance_id, tasks=("shop.pay",), **load)

    def sent(self, queue: str, priority: int = 0) -> list[dict[str, Any]]:
        """The messages of a queue, oldest first."""
        raws: Any = self.store.client.lrange(self.store.wire.list_of(queue, priority), 0, -1)
        return [json.loads(raw) for raw in reversed(raws)]

    def orders(self, queue: str, priority: int = 0) -> list[Any]:
        """The first argument of each message of a queue, oldest first."""
        return [json.loads(b64decode(m["body"]))[0][0] for m in self.sent(queue, priority)]

    def depths(self) -> dict[str, int]:
        """Every list of the broker and its length."""
        found: Any = self.store.client.scan_iter(_type="list")
        return {key: int(self.store.client.llen(key)) for key in found}

    def placed(self) -> list[PlacementRecord]:
        records = Events(self.store).read().records
        return [r for r in records if isinstance(r, PlacementRecord)]

    def writes(self) -> int:
        """How many scripts the server has run so far."""
        return int(self.store.client.info("commandstats")["cmdstat_evalsha"]["calls"])


MakeShop = Callable[..., Shop]
