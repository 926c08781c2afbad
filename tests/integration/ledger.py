"""The account of what ran, and a fleet of the app that keeps it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nxs_tasks.model.shelf import QUARANTINE, Shelved
from nxs_tasks.store.shelves import Shelves
from tests.integration.live import Live, Process

APP = "tests.integration.ledger_fleet"
RAN = "ran"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the account."""

    task_id: str
    what: str
    at: float  # the server's clock, s
    pid: int


class Ledger:
    """What ran in one live fleet, and what is left of it."""

    def __init__(self, live: Live, tasks: Any) -> None:
        self.live = live
        self.tasks = tasks
        self.client = live.store.client

    def entries(self, what: str = "") -> list[Entry]:
        lines = [str(line) for line in self.client.lrange(RAN, 0, -1)]
        found = [Entry(*json.loads(line)) for line in lines]
        return [entry for entry in found if entry.what.startswith(what)]

    def times(self, what: str = "start") -> Counter[str]:
        """How often each task has come so far."""
        return Counter(entry.task_id for entry in self.entries(what))

    def worker(self, name: str, slots: int, *options: str) -> Process:
        """A worker that is ready."""
        # Without a look for neighbours, which takes two seconds.
        process = self.live.worker(name, slots, "--without-mingle", *options, app=APP)
        self.live.until(lambda: f"{name} ready" in process.log, f"{name} ready")
        return process

    def held(self) -> int:
        """Messages that anybody holds, of any epoch."""
        keys = self.client.scan_iter(match=self.live.store.keys.inflight_base() + "*")
        return sum(int(self.client.hlen(key)) for key in keys)

    def waiting(self) -> int:
        found = [self.live.store.shared_queue, *self.client.scan_iter(match="nxs.default/*")]
        return sum(int(self.client.llen(key)) for key in found)

    def until_idle(self) -> None:
        """Wait until nothing waits and nothing is held."""
        self.live.until(lambda: not self.waiting() and not self.held(), "nothing waiting or held")

    def quarantined(self) -> list[Shelved]:
        return list(Shelves(self.live.store).entries(QUARANTINE))


@contextmanager
def a_ledger(live: Live) -> Iterator[Ledger]:
    """The app, loaded in this process against the live server."""
    live.env["LEDGER_URL"] = live.server.url
    added = {k: v for k, v in live.env.items() if k.startswith(("NXS_", "SHOP_", "LEDGER_"))}
    before = {k: os.environ.get(k) for k in added}
    os.environ.update(added)
    sys.modules.pop(APP, None)
    try:
        tasks = importlib.import_module(APP)
        yield Ledger(live, tasks)
        tasks.app.close()
    finally:
        sys.modules.pop(APP, None)
        for key, value in before.items():
            os.environ.pop(key, None)
            os.environ.update({} if value is None else {key: value})
