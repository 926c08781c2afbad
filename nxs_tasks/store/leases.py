"""Who leads among the beats of an app, and where each entry of the schedule stands."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

from nxs_tasks.model.lead import Lead, Run, StandBy, Standing
from nxs_tasks.store.connect import explained
from nxs_tasks.store.rows import MALFORMED
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.tick import NOTHING, Tick, ticked

log = logging.getLogger(__name__)

#: A beat that was not heard of for so many leases is forgotten.
FORGOTTEN_AFTER = 3


class BeatLease:
    """The lease of the leading beat of an app, and the last runs a successor goes on from."""

    def __init__(self, store: FleetStore, app: str, holder: str, ttl_s: float) -> None:
        self._store = store
        self._app = app
        self._holder = holder
        self._ttl_s = ttl_s
        keys = store.keys
        self._lease, self._term = keys.beat_lease(app), keys.beat_term(app)
        self._runs = keys.beat_runs(app)

    def acquire(self) -> Standing:
        """Take the lead, renew it, or stand by."""
        keys = self._store.keys
        held, term, micro, left_ms = self._store.call(
            "lease",
            [
                self._lease,
                self._term,
                keys.beat_lead(self._app),
                keys.beats(self._app),
                keys.beat_apps(),
            ],
            [
                self._holder,
                int(self._ttl_s * 1000),
                self._app,
                int(FORGOTTEN_AFTER * self._ttl_s) + 1,
            ],
        )
        return Standing(bool(held), int(term), int(micro) / 1e6, max(0, int(left_ms)) / 1000)

    def resign(self, *, ends: bool = False) -> None:
        """Give the lead up, if we have it, so that nobody waits for the TTL.

        With `ends` this beat stands by no more.
        """
        keys = self._store.keys
        self._store.call(
            "resign",
            [self._lease, keys.beat_lead(self._app), keys.beats(self._app)],
            [self._holder, int(ends)],
        )

    def holder(self) -> str | None:
        """Who leads now."""
        with explained(self._store.url):
            return cast("str | None", self._store.client.get(self._lease))

    def adopt(self, term: int, since: Mapping[str, Run]) -> dict[str, str]:
        """Take the entries of a schedule on; returns the last run of each, as it stands in Redis.

        `since` says for each entry what counts if it has no run. Nothing is returned if we do not
        lead in that term.
        """
        pairs = [part for name, run in since.items() for part in (name, as_text(run))]
        found = self._store.call(
            "adopt", [self._lease, self._term, self._runs], [self._holder, term, *pairs]
        )
        return dict(zip(found[::2], found[1::2], strict=True))

    def tick(self, entry: str, before: str, run: Run) -> Tick:
        """A run that is to be sent in its term, after the one that is known."""
        keys = (self._lease, self._term, self._runs)
        return Tick(keys, self._holder, run.term, entry, before, as_text(run))

    def count(self, tick: Tick) -> None:
        """Count a run that no write counts. Raises `NotLeading`, `AnotherRun`."""
        with explained(self._store.url):
            answer = self._store.client.eval(
                ticked(NOTHING), len(tick.keys), *tick.keys, *tick.arguments
            )
        tick.refuse(answer)

    def runs(self) -> dict[str, Run]:
        """The last run of each entry."""
        with explained(self._store.url):
            found = cast("dict[str, str]", self._store.client.hgetall(self._runs))
        runs = {name: read_run(name, text) for name, text in found.items()}
        return {name: run for name, run in runs.items() if run is not None}


def as_text(run: Run) -> str:
    """A run as it stands in Redis."""
    return json.dumps(asdict(run), separators=(",", ":"))


def read_run(entry: str, text: str) -> Run | None:
    """A run; None for a text that is none, which is told."""
    try:
        found = json.loads(text)
        due = found.get("due")
        return Run(
            at=float(found["at"]),
            count=int(found["count"]),
            term=int(found["term"]),
            task_id=str(found["task_id"]),
            due=None if due is None else float(due),
        )
    except (*MALFORMED, AttributeError) as error:
        log.error("the last run of %s cannot be read: %r", entry, error)
        return None


def leads(store: FleetStore) -> list[Lead]:
    """Who leads in each app that has beats."""
    with explained(store.url):
        apps = cast("set[str]", store.client.smembers(store.keys.beat_apps()))
    return [lead(store, app) for app in sorted(apps)]


def lead(store: FleetStore, app: str) -> Lead:
    """Who leads the beats of an app."""
    keys = store.keys
    with explained(store.url):
        pipe = store.client.pipeline(transaction=True)
        pipe.get(keys.beat_lease(app))
        pipe.get(keys.beat_term(app))
        pipe.hgetall(keys.beat_lead(app))
        pipe.zrange(keys.beats(app), 0, -1, withscores=True)
        holder, term, about, beats = pipe.execute()
    times = {name: float(about[name]) for name in ("since", "renewed", "resigned") if name in about}
    return Lead(
        app=app,
        leader=holder or "",
        last=str(about.get("holder", "")),
        term=int(term or 0),
        since=times.get("since"),
        renewed_at=times.get("renewed"),
        resigned_at=times.get("resigned"),
        standbys=tuple(StandBy(beat=name, asked_at=at) for name, at in beats if name != holder),
        runs=BeatLease(store, app, "", 0).runs(),
    )
