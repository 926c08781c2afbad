"""Who leads among the beats, and where each entry of the schedule stands."""

from __future__ import annotations

import json
import logging
from typing import cast

from nxs_tasks.store.connect import explained
from nxs_tasks.store.rows import MALFORMED
from nxs_tasks.store.store import FleetStore

log = logging.getLogger(__name__)


class BeatLease:
    """The lease of the leading beat of an app, and the last runs a successor goes on from."""

    def __init__(self, store: FleetStore, app: str, holder: str, ttl_s: float) -> None:
        self._store = store
        self._app = app
        self._holder = holder
        self._ttl_ms = int(ttl_s * 1000)

    def acquire(self) -> tuple[bool, int]:
        """Take or renew; returns (whether we lead, the term)."""
        keys = self._store.keys
        held, term = self._store.call(
            "lease",
            [keys.beat_lease(self._app), keys.beat_term(self._app)],
            [self._holder, self._ttl_ms],
        )
        return bool(held), int(term)

    def resign(self) -> None:
        """Give the lead up, if we have it, so that nobody waits for the TTL."""
        self._store.call("resign", [self._store.keys.beat_lease(self._app)], [self._holder])

    def holder(self) -> str | None:
        """Who leads now."""
        with explained(self._store.url):
            return cast(
                "str | None", self._store.client.get(self._store.keys.beat_lease(self._app))
            )

    def runs(self) -> dict[str, tuple[float, int]]:
        """Schedule entry to (wall time of its last run, s, number of runs)."""
        with explained(self._store.url):
            found = cast(
                "dict[str, str]", self._store.client.hgetall(self._store.keys.beat_runs(self._app))
            )
        runs = {}
        for name, text in found.items():
            try:
                at, count = json.loads(text)
                runs[name] = (float(at), int(count))
            except MALFORMED as error:
                log.error("the last run of %s cannot be read: %r", name, error)
        return runs

    def set_run(self, name: str, at: float, count: int) -> None:
        """Remember a run."""
        with explained(self._store.url):
            self._store.client.hset(
                self._store.keys.beat_runs(self._app), name, json.dumps([at, count])
            )
