"""A slow join: a grace, more of it for who tells of its progress, and an end."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.decision import Decision, Transition
from nxs_tasks.model.instance import Flapping, Instance
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.joining import refused_s
from nxs_tasks.policy.fleet.lifecycle import evaluate
from tests.unit.builders import NOW, a_load, a_snapshot, an_instance, case, knobs

SPEC = knobs()


def newcomer(age: float, progress: str = "", **record: Any) -> Instance:
    load = a_load(consuming=False, progress=progress)
    return an_instance(state=State.JOINING, since=NOW - age, load=load, **record)


def decision(instance: Instance) -> Decision:
    [found] = evaluate(a_snapshot(instance), SPEC, NOW)
    return found


@pytest.mark.parametrize(
    ("instance", "fails"),
    [
        case("two minutes are its grace", newcomer(119.0), False),
        case("after that it has failed", newcomer(121.0), True),
        case(
            "progress gives it a new one",
            newcomer(500.0, "40 %", progress_at=NOW - 60.0),
            False,
        ),
        case(
            "as long as it goes on",
            newcomer(500.0, "40 %", progress_at=NOW - 121.0),
            True,
        ),
        case(
            "and not for ever",
            newcomer(901.0, "99 %", progress_at=NOW - 1.0),
            True,
        ),
        case(
            "the time for which it was withheld is not its own",
            newcomer(500.0, flapping=Flapping(until=NOW - 60.0, level=1)),
            False,
        ),
    ],
)
def test_a_newcomer(instance: Instance, fails: bool) -> None:
    found = decision(instance)
    if fails:
        assert isinstance(found, Transition)
        assert (found.event, found.target) == (Event.JOIN_TIMED_OUT, State.FAILED)
        assert found.loss is False
    else:
        assert not isinstance(found, Transition)


def test_who_is_not_ready_is_not_active_though_it_sends_heartbeats() -> None:
    load = a_load(progress="loading 40 %")
    found = decision(an_instance(state=State.JOINING, since=NOW - 30.0, load=load, beats=20))
    assert found.reason == "not ready yet: loading 40 %, the same for 30 s"


def test_why_it_failed_is_told() -> None:
    found = decision(newcomer(150.0, "loading 40 %", progress_at=NOW - 130.0))
    words = "JOINING for 150 s: not ready yet: loading 40 %, the same for 130 s"
    assert found.reason == words


def test_ten_minutes_it_is_refused() -> None:
    failed = an_instance(state=State.FAILED, since=NOW - 100.0)
    assert refused_s(failed, SPEC, NOW) == 500.0
    assert decision(failed).reason == "is FAILED, may join again in 500 s"
    assert refused_s(failed, SPEC, NOW + 501.0) == 0.0
