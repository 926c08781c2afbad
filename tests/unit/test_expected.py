"""When a waiting task is expected to start; unknown stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.why import Start, Whereabouts
from nxs_tasks.policy.fleet.expected import expected
from nxs_tasks.policy.fleet.takers import takers
from tests.unit.builders import (
    GIB,
    SHARED,
    TASK,
    a_load,
    a_snapshot,
    an_instance,
    case,
    examples,
    knobs,
)

SPEC = knobs()


def busy(
    name: str, mean: float | None, slots: int = 2, held: int | None = None, **known: Any
) -> Instance:
    load = a_load(slots=slots, mean_s=mean)
    return an_instance(name, load=load, held=slots if held is None else held, **known)


def start(*instances: Instance, demand: Demand | None = None, **where: Any) -> Start:
    known: dict[str, Any] = {"place": "queue", "queue": SHARED, "task": TASK, **where}
    found = Whereabouts(task_id="t", **known)
    demand = demand or Demand(TASK)
    snapshot = a_snapshot(*instances)
    return expected(found, demand, takers(found, demand, snapshot, SPEC))


def times(told: Start) -> tuple[float | None, ...]:
    known = (told.earliest_s, told.about_s, told.latest_s)
    return tuple(None if t is None else round(t, 6) for t in known)


@pytest.mark.parametrize(
    ("instances", "where", "wanted"),
    [
        case("first in line: one of two slots", [busy("w1", 10.0)], {}, (0.0, 5.0, 10.0)),
        case("behind seven on two slots", [busy("w1", 10.0)], {"ahead": 7}, (30.0, 40.0, 40.0)),
        case(
            "of several takers all slots count",
            [busy("w1", 10.0), busy("w2", 10.0)],
            {"ahead": 7},
            (10.0, 20.0, 20.0),
        ),
        case(
            "the quick and the slow one",
            [busy("w1", 1.0), busy("w2", 4.0)],
            {"ahead": 4},
            (1.0, 2.0, 8.0),
        ),
        case("a free slot", [busy("w1", 10.0, held=1)], {}, (0.0, 0.0, 0.0)),
        case(
            "two free slots and two before it", [busy("w1", 8.0, held=0)], {"ahead": 2}, (0, 4, 8)
        ),
        case(
            "what waits in own queues is taken before",
            [busy("w1", 10.0, queued=2)],
            {},
            (0.0, 15.0, 20.0),
        ),
        case(
            "in its own queue only what is before it",
            [busy("w1", 10.0, queued=9), busy("w2", 1.0)],
            {"queue": "nxs.default/w1", "own_of": "w1", "ahead": 1},
            (0.0, 10.0, 10.0),
        ),
        case(
            "other queues may come before it",
            [busy("w1", 10.0, consumes=[SHARED, "video"])],
            {"beside": {"video": 2, "audio": 50}},
            (0.0, 5.0, 20.0),
        ),
        case(
            "who cannot run it is no taker",
            [busy("w1", 10.0), busy("w2", 1.0, knows=["shop.other"])],
            {},
            (0.0, 5.0, 10.0),
        ),
        case(
            "who tells no mean has that of the others",
            [busy("w1", 10.0), busy("w2", None)],
            {},
            (0.0, 2.5, 10.0),
        ),
    ],
)
def test_when_it_may_start(
    instances: list[Instance], where: dict[str, Any], wanted: tuple[float, ...]
) -> None:
    assert times(start(*instances, **where)) == wanted


def test_a_task_of_two_slots_waits_for_both() -> None:
    one = start(busy("w1", 10.0), demand=Demand(TASK))
    two = start(busy("w1", 10.0), demand=Demand(TASK, slots=2))
    assert (times(one)[1], times(two)[1]) == (5.0, 10.0)


def test_who_is_idle_may_take_it_over() -> None:
    own: dict[str, Any] = {"queue": "nxs.default/w1", "own_of": "w1", "placed": True, "ahead": 3}
    told = start(busy("w1", 10.0, queued=4), busy("w2", 10.0, slots=4, held=0), **own)
    assert times(told) == (0.0, 20.0, 20.0)
    assert told.why.endswith("; sooner if w2, which is idle, takes it over")
    gone = start(
        busy("w1", 10.0, queued=4, silent_for=20.0), busy("w2", 9.0, held=0), **{**own, "ahead": 4}
    )
    assert times(gone) == (9.0, None, None)
    assert gone.why == "nobody takes it now, but w2 is idle and may take it over"


NEEDY = Profile(tasks=frozenset({TASK}), queues=frozenset({SHARED}), memory=5 * GIB)


@pytest.mark.parametrize(
    ("instances", "demand", "why"),
    [
        case(
            "nobody takes", [busy("w1", 1.0, silent_for=20.0)], Demand(TASK), "nobody takes it now"
        ),
        case("no mean", [busy("w1", None)], Demand(TASK), "no task has ended there yet: how long"),
        case(
            "no room in memory",
            [busy("w1", 1.0, profile=NEEDY)],
            Demand(TASK, memory=6 * GIB),
            "it waits for memory, and when that is free nobody can tell",
        ),
        case("no slots", [busy("w1", 1.0, slots=0, held=0)], Demand(TASK), "how many slots there"),
    ],
)
def test_unknown_is_unknown_and_never_zero(
    instances: list[Instance], demand: Demand, why: str
) -> None:
    told = start(*instances, demand=demand)
    assert times(told) == (None, None, None)
    assert told.why.startswith(why)


A_TAKER = st.tuples(
    st.integers(1, 8), st.integers(0, 12), st.integers(0, 20), st.none() | st.floats(0.0, 1e4)
)


@examples(200)
@given(st.lists(A_TAKER, min_size=1, max_size=5), st.integers(0, 1000), st.integers(0, 50))
def test_the_estimate_lies_in_its_range(
    shapes: list[tuple[int, int, int, float | None]], ahead: int, beside: int
) -> None:
    instances = [
        busy(f"w{n}", mean, slots=slots, held=held, queued=queued)
        for n, (slots, held, queued, mean) in enumerate(shapes)
    ]
    told = start(*instances, ahead=ahead, beside={SHARED: beside})
    known = any(mean is not None for *_, mean in shapes)
    assert (told.about_s is not None) == known
    if told.about_s is not None:
        assert told.earliest_s is not None
        assert told.latest_s is not None
        nearly = 1e-9 * (1.0 + told.about_s)
        assert 0.0 <= told.earliest_s <= told.about_s + nearly <= told.latest_s + 2 * nearly
