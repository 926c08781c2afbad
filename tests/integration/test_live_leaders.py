"""Two real beats: one leads, is frozen, and wakes when the other leads. What `nxs leader` says."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from typing import Any

from nxs_tasks.model.lead import Run
from nxs_tasks.store.leases import BeatLease, lead
from nxs_tasks.store.locks import Lock
from tests.integration.live import APP, Live, Process

pytest_plugins = ["tests.integration.live_fixtures"]

ENTRY = "nxs-lifecycle"


def sent(live: Live) -> list[dict[str, Any]]:
    """Headers of what has arrived of the entry, in order. Nobody consumes it."""
    raws = live.store.client.lrange("nxs.control", 0, -1)
    found = [json.loads(str(raw))["headers"] for raw in reversed(raws)]
    return [headers for headers in found if headers["task"] == "nxs.control.lifecycle"]


def leader(live: Live, beats: list[Process]) -> Process | None:
    name = lead(live.store, "shop").leader
    return next((beat for beat in beats if f"/{beat.pid}/" in name), None)


def test_a_leader_that_is_frozen_and_wakes_doubles_nothing(live: Live) -> None:
    live.env |= {"NXS_LIFECYCLE_PERIOD": "0.5", "NXS_BEAT_LEASE": "2"}
    argv = ("celery", "-A", APP, "beat", "--pidfile=", "-l", "INFO")
    beats = [live.start(f"beat-{n}", *argv) for n in (1, 2)]

    def more_than(count: int) -> None:
        live.until(lambda: len(sent(live)) > count, f"more than {count} runs")

    def stands_by() -> set[str]:
        return {s.beat.split("/")[1] for s in lead(live.store, "shop").standbys}

    live.until(lambda: len(stands_by()) == 1, "one stands by")
    more_than(2)
    first = leader(live, beats)
    assert first is not None
    [second] = [beat for beat in beats if beat is not first]
    first.signal(signal.SIGSTOP)
    live.until(lambda: leader(live, beats) is second, "the other leads")
    first.signal(signal.SIGCONT)
    live.until(lambda: "stands by" in first.log or "lost the lead" in first.log, "it is told")
    more_than(len(sent(live)) + 3)

    told = live.nxs("leader")
    assert told.returncode == 0, told.stderr
    assert f"/{second.pid}/" in told.stdout.split(" leads for ")[0]
    assert "term 2" in told.stdout
    assert f"/{first.pid}/" in told.stdout.split("stands by: ")[1]
    assert ENTRY in told.stdout
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    live.until(lambda: leader(live, beats) is first, "it leads again")
    more_than(len(sent(live)))
    first.signal(signal.SIGTERM)
    assert first.wait() == 0

    arrived = sent(live)
    assert BeatLease(live.store, "shop", "", 1).runs()[ENTRY].count == len(arrived)
    assert len({headers["id"] for headers in arrived}) == len(arrived)
    terms = [headers["nxs_term"] for headers in arrived]
    assert all(a <= b for a, b in pairwise(terms))
    assert set(terms) == {1, 2, 3}
    told = live.nxs("leader")
    assert told.returncode == 1
    assert f"shop: nobody leads; {lead(live.store, 'shop').last} resigned" in told.stdout
    assert "nobody stands by, so nothing periodic is sent: start `celery beat`" in told.stdout


def test_what_nxs_says_of_leaders_and_locks_with_nobody_up(live: Live) -> None:
    told = live.nxs("leader")
    assert told.returncode == 1
    assert told.stdout.startswith("nobody leads: no beat has ever asked; start `celery beat`")
    assert json.loads(live.nxs("leader", "--json").stdout)["leads"] == []
    assert live.nxs("locks").stdout == "no lock is held\n"

    a, b = (BeatLease(live.store, "shop", f"{name}/1/x", 60.0) for name in "ab")
    a.acquire()
    b.acquire()
    now = live.store.now()
    late, soon = Run(at=now - 90, count=7, term=1, due=now - 30), Run(at=now, count=0, due=now + 99)
    a.adopt(1, {"late": late, "soon": soon, "whenever": Run(at=now, count=0)})
    live.store.client.delete(live.store.keys.beat_lease("shop"))
    told = live.nxs("leader")
    assert told.returncode == 1
    assert "nobody leads; the lease of a/1/x ran out (term 1): it renewed last" in told.stdout
    # Of `a` nobody knows that it is dead: it asked as lately as `b`.
    assert "b/1/x (asked " in told.stdout
    assert "and will lead in a moment" in told.stdout
    rows = [line.split() for line in told.stdout.splitlines() if "late" in line or "soon" in line]
    assert rows[0][:2] == ["late", "7"]
    assert "overdue" in rows[0]
    assert rows[1][:4] == ["soon", "0", "–", "–"]

    with Lock(live.store, "till", owner="host/1/x/y", lease_s=60.0) as held:
        shown = live.nxs("locks")
        assert shown.returncode == 0, shown.stderr
        [line] = [line for line in shown.stdout.splitlines() if line.startswith("till")]
        assert "host/1/x" in line
        assert "a lease" in line
        told_json = json.loads(live.nxs("locks", "--json").stdout)
        assert [(t["name"], t["number"]) for t in told_json] == [("till", held.token)]
