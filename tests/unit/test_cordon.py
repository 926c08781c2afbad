"""What waits for an instance that is out of service, and what others see of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nxs_tasks.model.decision import Migrate, Nothing, Steal
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.cordon import clear_cordoned
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.moving import elsewhere, why_not_to
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.policy.fleet.readiness import knower, unready
from nxs_tasks.policy.fleet.rebalance import rebalance
from nxs_tasks.policy.fleet.stealing import steal
from tests.unit.builders import HOUR, NOW, SHARED, TASK, a_snapshot, an_instance, knobs

WORD = "by eve@desk: new kernel"
SPEC = knobs()
OUT = an_instance("w1", cordoned=WORD)
IN = an_instance("w2")


def test_it_is_told_who_has_said_so_and_why() -> None:
    assert unready(OUT, a_snapshot(OUT, IN), SPEC) == f"cordoned {WORD}"


def test_nothing_is_placed_there_not_even_where_it_is_alone() -> None:
    both, alone = a_snapshot(OUT, IN), a_snapshot(OUT)
    assert explain(TASK, both, SPEC).placement.instance == "w2"
    assert explain(TASK, alone, SPEC).placement.instance is None


def test_it_steals_nothing_and_is_stolen_from() -> None:
    victim = replace(OUT, queued=3)
    told = steal(replace(OUT, id="w3"), a_snapshot(replace(IN, queued=9, inflight=4)), SPEC)
    assert isinstance(told, Nothing)
    assert WORD in told.reason
    assert isinstance(steal(IN, a_snapshot(victim, IN), SPEC), Steal)


def test_rebalancing_brings_nothing_there() -> None:
    full = an_instance("w2", held=4, queued=400)
    found = rebalance(a_snapshot(OUT, full), SPEC, NOW)
    assert not [d for d in found if isinstance(d, Migrate)]
    free = rebalance(a_snapshot(replace(OUT, cordoned=""), full), SPEC, NOW)
    assert [d for d in free if isinstance(d, Migrate)], "it would, but for the cordon"


def test_no_running_task_moves_there() -> None:
    snapshot = a_snapshot(OUT, IN)
    assert WORD in why_not_to("w1", TASK, "w2", SHARED, snapshot, SPEC)
    assert elsewhere(TASK, "w3", SHARED, snapshot, SPEC) == ("w2",)


def test_what_a_stranger_has_taken_goes_rather_to_who_is_in_service() -> None:
    busy = replace(IN, queued=50)
    assert knower(TASK, a_snapshot(OUT, busy), SHARED, but="w3") == "w2"
    assert knower(TASK, a_snapshot(OUT), SHARED, but="w3") == "w1", "it will, one day"


@pytest.mark.parametrize("state", [State.JOINING, State.ACTIVE, State.DEGRADED])
def test_what_waits_for_it_goes_to_others(state: State) -> None:
    waiting = replace(OUT, state=state, queued=3)
    [release] = clear_cordoned(a_snapshot(waiting, replace(IN, queued=3)))
    assert (release.instance, release.source, release.target) == ("w1", state, SHARED)
    assert WORD in release.reason


@pytest.mark.parametrize("state", [State.LEAVING, State.ZOMBIE, State.GONE, State.FAILED])
def test_what_waits_for_one_that_ends_is_the_business_of_the_lifecycle(state: State) -> None:
    assert clear_cordoned(a_snapshot(replace(OUT, state=state, queued=3), IN)) == []


def test_without_anything_that_waits_nothing_is_done() -> None:
    assert clear_cordoned(a_snapshot(OUT, replace(IN, queued=3))) == []
    assert clear_cordoned(a_snapshot(replace(OUT, queued=None))) == [], "unknown is no number"


def test_a_cordon_outlives_the_time_for_which_the_gone_are_known() -> None:
    gone = an_instance("w1", state=State.GONE, held=0, since=NOW - 24 * HOUR)
    [forgotten] = evaluate(a_snapshot(gone), SPEC, NOW)
    assert type(forgotten).__name__ == "Forget"
    [kept] = evaluate(a_snapshot(replace(gone, cordoned=WORD)), SPEC, NOW)
    assert isinstance(kept, Nothing)
    assert WORD in kept.reason
