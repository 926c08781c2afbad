"""An app with a fleet whose submissions are timed, and what lies in its broker and its spool."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.store import FleetStore
from nxs_tasks.submission.batches import rows
from tests.conftest import MakeApp, new_store

DEADLINE_S = 0.5
#: What a submission may take on a machine that is busy with other things, s.
MARGIN_S = 4.0
#: Longest wait for what will happen. A deadline, not an expectation.
PATIENCE_S = 60.0


class Shop:
    """An app with a fleet, its task, and what lies in its broker."""

    def __init__(self, make_app: MakeApp, url: str, **settings: Any) -> None:
        conf = settings.pop("conf", {})
        self.fleet = make_app(url, conf, **{"submit_deadline": DEADLINE_S, **settings})
        self.app: Any = self.fleet.app

        @self.app.task(name="shop.pay", shared=False)
        def pay(*args: int) -> None: ...

        self.pay: Any = pay
        self.longest_s = 0.0

    def timed(self, call: Callable[[], Any]) -> Any:
        before = SYSTEM.monotonic()
        try:
            return call()
        finally:
            self.longest_s = max(self.longest_s, SYSTEM.monotonic() - before)
            assert self.longest_s < DEADLINE_S + MARGIN_S

    def submit(self, count: int, first: int = 0) -> list[str]:
        """Ids of tasks with these numbers."""
        numbers = range(first, first + count)
        return [self.timed(partial(self.pay.delay, n)).id for n in numbers]

    def kept(self) -> list[str]:
        """Ids of what is in the spool."""
        if not self.fleet.outbox.spool.exists():
            return []
        found = rows(self.fleet.outbox.spool, 10_000)
        return [json.loads(row.message)["headers"]["id"] for row in found]

    def drained(self, url: str) -> list[str]:
        """Ids of what waits in the shared queue when the spool is empty."""
        assert wait_until(lambda: not self.kept(), PATIENCE_S)
        return sent(new_store(url))


def sent(store: FleetStore, queue: str = "celery") -> list[str]:
    raws: Any = store.client.lrange(queue, 0, -1)
    return [json.loads(raw)["headers"]["id"] for raw in reversed(raws)]
