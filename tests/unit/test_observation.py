"""The observer's own health: whom it believes, and how patient it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nxs_tasks.model.decision import Nothing, Transition
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.observation import observe
from tests.unit.builders import NOW, a_snapshot, an_instance, case, knobs

SPEC = knobs()


def a_fleet(silent: int, of: int, for_s: float = 40.0, **record: Any) -> list[Instance]:
    return [
        an_instance(f"w{n:02}", silent_for=for_s if n < silent else 1.0, **record)
        for n in range(of)
    ]


def lost(*instances: Instance, **about: Any) -> list[str]:
    snapshot = replace(a_snapshot(*instances), **about)
    return [d.instance for d in evaluate(snapshot, SPEC, NOW) if isinstance(d, Transition)]


@pytest.mark.parametrize("connections", [0, 1, None])
def test_silence_of_most_of_the_fleet_is_the_observer_s(connections: int | None) -> None:
    fleet = a_fleet(6, 10, connections=connections)
    assert lost(*fleet) == []
    found = evaluate(a_snapshot(*fleet), SPEC, NOW)[0]
    assert isinstance(found, Nothing)
    assert "6 of 10 instances are silent at once since 40 s" in found.reason


@pytest.mark.parametrize(
    ("silent", "of"),
    [
        case("half of the fleet is no majority", 5, 10),
        case("exactly 55 % is none yet", 11, 20),
        case("two are no crowd", 2, 2),
    ],
)
def test_fewer_are_believed(silent: int, of: int) -> None:
    assert len(lost(*a_fleet(silent, of))) == silent


def test_who_is_gone_or_leaves_makes_no_majority() -> None:
    fleet = a_fleet(3, 6)
    gone = [an_instance(f"x{n}", state=State.GONE, silent_for=600.0) for n in range(9)]
    leaving = [an_instance(f"y{n}", state=State.LEAVING, silent_for=20.0) for n in range(9)]
    assert len(lost(*fleet, *gone, *leaving)) == 3


def test_a_majority_that_is_silent_for_5_minutes_is_believed() -> None:
    assert lost(*a_fleet(6, 10, for_s=299.0)) == []
    assert len(lost(*a_fleet(6, 10, for_s=301.0))) == 6


def test_the_time_counts_from_when_they_were_a_crowd() -> None:
    fleet = [an_instance("w00", silent_for=900.0, connections=1, state=State.ZOMBIE)]
    fleet += [an_instance(f"w{n:02}", silent_for=40.0) for n in range(1, 6)]
    fleet += [an_instance(f"w{n:02}") for n in range(6, 10)]
    assert lost(*fleet) == [], "one was silent for long, six are since 40 s"


def a_cut_fleet(since_s: float) -> list[Instance]:
    """6 of 10 were cut off so long ago, and their connections closed; their last heartbeats are of
    the 5 s before.
    """
    cut = [an_instance(f"w{n:02}", silent_for=since_s + n, connections=0) for n in range(6)]
    return cut + [an_instance(f"w{n:02}") for n in range(6, 10)]


@pytest.mark.parametrize("since_s", [5.5, 7.0, 9.0, 11.0, 30.0, 290.0])
def test_some_of_a_crowd_are_overdue_before_the_others(since_s: float) -> None:
    assert lost(*a_cut_fleet(since_s)) == []


def test_a_silence_of_less_than_a_period_is_none() -> None:
    closed = [an_instance(f"x{n}", silent_for=4.9, connections=0) for n in range(9)]
    assert lost(an_instance("w1", silent_for=12.0, connections=0), *closed) == ["w1"]


def test_after_a_doubt_all_get_a_full_new_time_out() -> None:
    heard_again = a_cut_fleet(120.0)[4:]
    assert lost(*heard_again, believed_since=NOW) == []
    assert lost(*heard_again, believed_since=NOW - 9.9) == []
    assert lost(*heard_again, believed_since=NOW - 10.1) == ["w04", "w05"]
    assert lost(*heard_again, believed_since=None) == ["w04", "w05"]


def test_a_doubt_does_not_make_the_silence_of_most_any_shorter() -> None:
    crowd = a_fleet(6, 10, for_s=301.0, connections=0)
    assert lost(*crowd, believed_since=NOW - 5.0) == []
    assert len(lost(*crowd, believed_since=NOW - 15.0)) == 6
    found = evaluate(replace(a_snapshot(*a_fleet(6, 10)), believed_since=NOW - 5.0), SPEC, NOW)[0]
    assert "silent at once since 40 s" in found.reason


def test_a_late_look_is_patient_in_proportion() -> None:
    dead = an_instance("w1", silent_for=25.0, connections=0)
    others = [an_instance(f"x{n}") for n in range(3)]
    assert lost(dead, *others) == ["w1"]
    assert lost(dead, *others, late_s=10.0) == [], "10 s are two periods late: three times as long"
    assert observe(replace(a_snapshot(), late_s=1e6), SPEC, NOW).patience == 8.0


def test_no_time_counts_from_before_the_observation() -> None:
    slow = an_instance("w1", state=State.JOINING, beats=1, since=NOW - 1000.0)
    assert lost(slow) == ["w1"]
    assert lost(slow, observed_since=NOW - 100.0) == []
    assert lost(slow, server_started_at=NOW - 100.0) == []
