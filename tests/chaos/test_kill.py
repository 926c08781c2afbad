"""What a fleet does when one of its instances is killed."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.shelf import PARKED
from nxs_tasks.model.state import State
from nxs_tasks.store.shelves import Shelves
from tests.integration.live import PATIENCE_S, Live

pytest_plugins = ["tests.integration.live_fixtures"]
pytestmark = pytest.mark.chaos

#: Spec 2.2: no instance is carried on for longer than this after its death.
GONE_WITHIN_S = 30.0


def test_what_a_killed_worker_ran_runs_elsewhere(live: Live, shop: Any) -> None:
    live.control_plane()
    victim = live.worker("w1@t", 2)
    live.until_state(State.ACTIVE, "w1@t")
    short, long = shop.nap.delay(20.0), shop.nap.delay(300.0)
    live.until(lambda: live.instance("w1@t").inflight == 2, "both are held by the victim")
    live.worker("w2@t", 3)
    live.until_state(State.ACTIVE, "w2@t")
    killed_at = live.snapshot().taken_at
    victim.kill()
    live.until_state(State.GONE, "w1@t")
    gone = live.instance("w1@t")
    assert gone.since - killed_at <= GONE_WITHIN_S
    assert "no connection" in gone.verdict

    start, _ = short.get(timeout=PATIENCE_S)
    assert start >= killed_at, "this is the run of the other"
    live.until(lambda: live.instance("w2@t").inflight == 1, "only the long one still runs")
    told = live.nxs("story", long.id).stdout
    assert "held now:" in told
    assert "by w2@t" in told
    assert "w1@t died while it held it" in told
    assert [h for h in live.snapshot().holders if h.instance == "w1@t"] == []
    assert "is gone" not in live.nxs("status").stdout

    after = [shop.add.delay(n, n) for n in range(20)]
    assert live.instance("w1@t").queued == 0, "nothing is placed on the dead"
    assert [r.get(timeout=PATIENCE_S) for r in after] == [2 * n for n in range(20)]


def test_what_was_placed_on_a_worker_before_it_died_runs_elsewhere(live: Live, shop: Any) -> None:
    """Waiting, not held: the control worker gives it back to the shared queue."""
    live.control_plane()
    victim, _ = live.worker("w1@t", 1), live.worker("w2@t", 1)
    live.until_state(State.ACTIVE, "w1@t", "w2@t")
    victim.kill()
    # The view of a submitter may be a second old: it places on the dead.
    placed = [shop.add.delay(n, 1) for n in range(6)]
    assert sorted(r.get(timeout=PATIENCE_S) for r in placed) == [1, 2, 3, 4, 5, 6]


def test_the_line_of_the_only_one_that_knows_a_task_is_discarded_by_nobody(
    live: Live, shop: Any
) -> None:
    """Two instances of another app on the same queue: they would throw the tasks away."""
    live.control_plane()
    only = live.worker("w1@t", 1)
    others = "tests.integration.other_fleet"
    live.worker("w2@t", 1, app=others)
    live.until_state(State.ACTIVE, "w1@t", "w2@t")
    nap = shop.nap.delay(300.0)
    live.until(lambda: live.instance("w1@t").inflight == 1, "its only slot taken")
    added = [shop.add.delay(n, 1) for n in range(10)]
    assert live.instance("w1@t").queued == 10, "the shared queue would hand them to the other"
    only.kill()
    live.until_state(State.GONE, "w1@t")
    live.until(lambda: "for who knows them" in live.instance("w1@t").verdict, "a verdict on them")
    live.until(lambda: parked(live) == [nap.id], "what it ran is parked by the other")
    assert (live.instance("w1@t").queued, live.snapshot().shared_depth) == (10, 0)
    live.worker("w1@t", 2)
    assert [r.get(timeout=PATIENCE_S) for r in added] == [n + 1 for n in range(10)]
    # A result is there before its task is acknowledged, so what is held may be the last of those.
    live.until(lambda: not parked(live), "the nap goes to who knows it")
    live.until(lambda: live.instance("w1@t").inflight == 1, "the nap runs where it is known")
    assert parked(live) == []
    assert "died while it held it" in live.nxs("story", nap.id).stdout


def parked(live: Live) -> list[str]:
    return [entry.task_id for entry in Shelves(live.store).entries(PARKED)]
