"""What a worker does about its own deaf consumer, and when it does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.errors import SettingError
from nxs_tasks.model.decision import Heal, Nothing
from nxs_tasks.model.healing import Deaf, Remedy
from nxs_tasks.model.instance import Flapping
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.healing import heal, ladder
from tests.unit.builders import NOW, an_instance, case, knobs

OWN, SHARED = "nxs.default/w1", "celery"
#: What is done after 5, 10, 20, 30 and 50 s.
SETTINGS = knobs(heal_after="5,10,20,30,50")


def deaf(for_s: float, **seen: Any) -> Deaf:
    return Deaf(for_s=for_s, **{"asked_s": for_s, **seen})


def decide(seen: Deaf, **record: Any) -> Heal | Nothing:
    return heal(an_instance("w1", **record), seen, SETTINGS, NOW)


def test_the_ladder_is_data() -> None:
    assert [rung.after_s for rung in ladder(SETTINGS)] == [5, 10, 20, 30, 50]
    assert [rung.remedy for rung in ladder(SETTINGS)] == list(Remedy)


@pytest.mark.parametrize("text", ["5,10,20,30", "5,10,20,30,50,60", "50,30,20,10,5", "a,b,c,d,e"])
def test_a_ladder_with_other_rungs_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingError, match="heal_after"):
        knobs(heal_after=text)


@pytest.mark.parametrize(
    ("seen", "remedy"),
    [
        case("it waits before the first", deaf(4.9, missing={OWN}), None),
        case("a queue is missing", deaf(5, missing={OWN}), Remedy.CONSUME),
        case("nothing is missing: it does not wait less for that", deaf(9), None),
        case("nothing is missing", deaf(10), Remedy.RECONNECT),
        case("one at a time", deaf(60, missing={OWN}, last=Remedy.CONSUME), Remedy.RECONNECT),
        case("a pool that cannot", deaf(29, last=Remedy.RECONNECT), None),
        case(
            "a pool that can",
            deaf(20, last=Remedy.RECONNECT, pool_restarts=True),
            Remedy.RESTART_POOL,
        ),
        case("it ends", deaf(30, last=Remedy.RECONNECT), Remedy.END),
        case("it was told to end", deaf(49, last=Remedy.END, told_to_end=True), None),
        case("and has not", deaf(50, last=Remedy.END, told_to_end=True), Remedy.KILL),
        case("who was not told is not killed", deaf(500, last=Remedy.END), None),
    ],
)
def test_what_is_tried(seen: Deaf, remedy: Remedy | None) -> None:
    decision = decide(seen)
    assert (decision.remedy if isinstance(decision, Heal) else None) == remedy
    assert decision.reason
    assert decision.evidence["deaf_s"] == seen.for_s


@pytest.mark.parametrize(
    ("seen", "record", "why"),
    [
        case("its slots are taken", {"full": True}, {}, "every slot is taken"),
        case("it joins", {"served": False}, {"state": State.JOINING}, "not been ACTIVE yet"),
        case("it leaves", {}, {"state": State.LEAVING}, "LEAVING"),
        case("it may not join", {}, {"state": State.FAILED}, "FAILED"),
        case("it is cordoned", {}, {"cordoned": "by ann: disk"}, "cordoned, by ann: disk"),
        case("it is ejected", {}, {"ejected_until": NOW + 1, "ejected_why": "x"}, "ejected, x"),
        case("it flaps", {}, {"flapping": Flapping(until=NOW + 1, why="y")}, "withheld, y"),
        case("it judges itself", {"suspended": True}, {}, "whose fault"),
        case(
            "paused on purpose",
            {"missing": {OWN, SHARED}, "paused": {OWN, SHARED}},
            {},
            "paused is celery",
        ),
    ],
)
def test_who_need_not_take_work(seen: dict[str, Any], record: dict[str, Any], why: str) -> None:
    decision = decide(deaf(500, **seen), **record)
    assert isinstance(decision, Nothing)
    assert why in decision.reason


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEGRADED, State.ZOMBIE, State.JOINING])
def test_who_has_worked_is_healed_in_every_state(state: State) -> None:
    assert isinstance(decide(deaf(10), state=state), Heal)


def test_an_ejection_that_is_over_excuses_nothing() -> None:
    assert isinstance(decide(deaf(10), ejected_until=NOW - 1, ejected_why="x"), Heal)


def test_only_what_is_not_paused_is_consumed_again() -> None:
    decision = decide(deaf(5, missing={OWN, SHARED}, paused={SHARED}))
    assert isinstance(decision, Heal)
    assert decision.remedy is Remedy.CONSUME
    assert OWN in decision.reason
    assert SHARED not in decision.reason
