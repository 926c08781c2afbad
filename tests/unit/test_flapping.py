"""Flapping: who is lost again and again is withheld, and who restarts is not."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.decision import Decision, Transition, Withhold
from nxs_tasks.model.instance import Flapping, Instance
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.flapping import level, withheld_s
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.transitions import is_loss
from tests.unit.builders import NOW, a_snapshot, an_instance, case, knobs

SPEC = knobs()


def lost(*ago: float, **known: Any) -> Flapping:
    """With losses so many seconds ago."""
    return Flapping(losses=tuple(NOW - s for s in sorted(ago, reverse=True)), **known)


def newcomer(flapping: Flapping, name: str = "w1", **more: Any) -> Instance:
    """One that could become ACTIVE at once."""
    known = {"since": NOW - 4.0, "beats": 4, "flapping": flapping, **more}
    return an_instance(name, state=State.JOINING, **known)


def decided(*instances: Instance) -> list[Decision]:
    return evaluate(a_snapshot(*instances), SPEC, NOW)


def withheld(*instances: Instance) -> dict[str, float]:
    """For how long from the loss on, 0 where it is only told."""
    found = [d for d in decided(*instances) if isinstance(d, Withhold)]
    return {d.instance: d.until and d.until - d.loss_at for d in found}


@pytest.mark.parametrize(
    ("flapping", "back_off"),
    [
        case("three losses are not more than three", lost(5, 100, 200), None),
        case("a fourth within 5 minutes", lost(5, 100, 200, 299), 60.0),
        case("an old one does not count", lost(5, 100, 200, 301), None),
        case(
            "the next after it was let in again",
            lost(5, 100, level=1, level_at=NOW - 100, until=NOW - 40),
            300.0,
        ),
        case(
            "the third is the longest",
            lost(5, 400, level=2, level_at=NOW - 400, until=NOW - 100),
            900.0,
        ),
        case(
            "and stays so",
            lost(5, 1000, level=3, level_at=NOW - 1000, until=NOW - 100),
            900.0,
        ),
        case(
            "15 min without a loss take one step back",
            lost(5, 1300, level=2, level_at=NOW - 1300, until=NOW - 1000),
            300.0,
        ),
        case(
            "until none counts",
            lost(5, 1000, level=1, level_at=NOW - 1000, until=NOW - 940),
            None,
        ),
        case("a loss is judged once", lost(5, 100, 200, 250, level=1, level_at=NOW - 5), None),
    ],
)
def test_back_offs(flapping: Flapping, back_off: float | None) -> None:
    expected = {} if back_off is None else {"w1": back_off}
    assert withheld(newcomer(flapping)) == expected


def test_who_is_withheld_does_not_become_active() -> None:
    decisions = decided(newcomer(lost(5, 100, 200, 299)))
    assert [type(d).__name__ for d in decisions] == ["Withhold", "Nothing"]
    assert "withheld for 55 s more: lost 4 time(s) in 5 min" in decisions[1].reason
    assert isinstance(decisions[0], Withhold)
    assert (decisions[0].level_before, decisions[0].level) == (0, 1)


def test_when_the_time_is_over_it_becomes_active() -> None:
    over = lost(70, 100, 200, 299, level=1, level_at=NOW - 70, until=NOW - 10)
    [found] = decided(newcomer(over))
    assert isinstance(found, Transition)
    assert found.event is Event.CONFIRMED


def test_no_more_than_a_fifth_of_the_fleet_is_withheld() -> None:
    flapping = [newcomer(lost(5, 100, 200, 299), f"w{n}") for n in range(4)]
    steady = [an_instance(f"x{n}") for n in range(6)]
    found = withheld(*flapping, *steady)
    assert sorted(found.values()) == [0.0, 0.0, 60.0, 60.0]
    told = [d for d in decided(*flapping, *steady) if isinstance(d, Withhold) and not d.until]
    assert all("so much of the fleet is withheld that it is let in" in d.reason for d in told)


def test_those_that_are_withheld_already_count() -> None:
    before = newcomer(lost(50, 100, 200, 299, level=1, level_at=NOW - 50, until=NOW + 10), "w0")
    steady = [an_instance(f"x{n}") for n in range(6)]
    assert withheld(before, newcomer(lost(5, 100, 200, 299)), *steady) == {"w1": 0.0}


def test_a_single_instance_may_be_withheld() -> None:
    assert withheld(newcomer(lost(5, 100, 200, 299))) == {"w1": 60.0}


def test_it_is_withheld_while_it_is_away_too() -> None:
    gone = an_instance(state=State.GONE, flapping=lost(5, 100, 200, 299))
    assert withheld(gone) == {"w1": 60.0}


@pytest.mark.parametrize(
    ("state", "event", "counts"),
    [
        (State.ACTIVE, Event.SILENT_CLOSED, True),
        (State.DEGRADED, Event.SILENT_CONNECTED, True),
        (State.ACTIVE, Event.DEAF, True),
        (State.ACTIVE, Event.REPLACED, True),
        (State.LEAVING, Event.SILENT_CLOSED, False),
        (State.LEAVING, Event.DRAINED, False),
        (State.ACTIVE, Event.UNHEALTHY, False),
        (State.ACTIVE, Event.SHUTDOWN, False),
        (State.ZOMBIE, Event.TERMINATED, False),
        (State.JOINING, Event.SILENT_CLOSED, False),
    ],
)
def test_what_counts_as_a_loss(state: State, event: Event, counts: bool) -> None:
    assert is_loss(state, event) is counts


def test_levels_fade() -> None:
    known = lost(100, level=3, level_at=NOW - 100, until=NOW)
    instance = an_instance(flapping=known)
    assert [level(instance, SPEC, NOW + s) for s in (0, 899, 900, 1800, 2700, 9e9)] == [
        *(3, 3, 2, 1, 0, 0)
    ]
    assert withheld_s(instance, NOW - 7) == 7
