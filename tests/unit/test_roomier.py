"""To whom a message goes that finds no room in the worker that has taken it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.roomier import roomier
from tests.unit.builders import SHARED, TASK, a_snapshot, an_instance, case, knobs

PROFILE = Profile(
    tasks=frozenset({TASK}), queues=frozenset({SHARED}), traits={TASK: Traits(slots=2)}
)


def one(name: str, **about: Any) -> Instance:
    return replace(an_instance(name, **{"slots": 2, **about}), profile=PROFILE)


HOLDER = one("w1", held=1)


@pytest.mark.parametrize(
    ("others", "found"),
    [
        case("nobody else is there", [], None),
        case("one has both slots free", [one("w2")], "w2"),
        case("one has only one", [one("w2", held=1)], None),
        case("the roomier of two", [one("w2", held=1), one("w3")], "w3"),
        case("one that is leaving takes nothing", [one("w2", state=State.LEAVING)], None),
        case("one that does not know it", [an_instance("w2", knows=("other",))], None),
        case(
            "the only one that knows it, if it has room",
            [one("w2"), an_instance("w3", knows=("other",))],
            "w2",
        ),
        case(
            "and not if it has none",
            [one("w2", held=2), an_instance("w3", knows=("other",))],
            None,
        ),
    ],
)
def test_it_goes_to(others: list[Instance], found: str | None) -> None:
    assert roomier(TASK, "w1", a_snapshot(HOLDER, *others), knobs()) == found


def test_never_to_who_has_it() -> None:
    assert roomier(TASK, "w1", a_snapshot(one("w1")), knobs()) is None
