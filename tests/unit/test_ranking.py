"""In which order instances come: slow start, DEGRADED, and how much of a kind runs already."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.demand import Demand, Traits
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import (
    DIRECT_ALONE,
    DIRECT_BEST,
    SHARED_BUSY,
    SHARED_COSTLY,
    SHARED_EMPTY,
)
from nxs_tasks.policy.fleet.ranking import CHOICES, LEAST_RAMP, ramp, weights
from nxs_tasks.policy.fleet.score import score
from tests.unit.builders import NOW, TASK, a_load, a_profile, an_instance, case, examples, knobs
from tests.unit.placing import SPEC, spread, weighed, why_not

MAIL = Demand(TASK)
COPY, FETCH = Demand("copy", io=True), Demand("fetch", io=True)
IO_TASKS = replace(
    a_profile([TASK, "copy", "fetch"]), traits={"copy": Traits(io=True), "fetch": Traits(io=True)}
)


def new(name: str, age: float, **known: Any) -> Instance:
    """One that became ACTIVE so many seconds ago."""
    return an_instance(name, since=NOW - age, **known)


def running(name: str, slots: int = 4, **types: int) -> Instance:
    """One on which so many tasks of these names run."""
    held = sum(types.values())
    load = a_load(
        slots=slots, running=held, types={TASK if k == "mail" else k: n for k, n in types.items()}
    )
    return an_instance(name, held=held, load=load, profile=IO_TASKS)


def worse(instance: Instance) -> Instance:
    """The same with a lower score, by 0.07."""
    return replace(instance, load=replace(instance.load, load_avg=2.0))


# --- slow start ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "share"),
    [(0, 0.1), (3, 0.1), (6, 0.1), (12, 0.2), (30, 0.5), (59, 59 / 60), (60, 1.0), (9999, 1.0)],
)
def test_a_new_instance_comes_to_its_weight_in_a_minute(age: float, share: float) -> None:
    assert ramp(new("w1", age), NOW, SPEC) == pytest.approx(share)


def test_how_long_that_takes_is_a_setting() -> None:
    assert ramp(new("w1", 5), NOW, knobs(slow_start=10)) == 0.5


def test_an_instance_whose_start_lies_ahead_is_new() -> None:
    assert ramp(new("w1", -30), NOW, SPEC) == LEAST_RAMP


@pytest.mark.parametrize("state", [s for s in State if s is not State.ACTIVE])
def test_only_one_that_is_active_is_new(state: State) -> None:
    assert ramp(new("w1", 0, state=state), NOW, SPEC) == 1.0


def test_an_older_one_comes_first_though_its_score_is_lower() -> None:
    found = weighed(MAIL, new("w1", 10), worse(new("w2", 3600)))
    assert found.placement.instance == "w2"
    assert found.placement.reason == DIRECT_BEST
    assert why_not(found)["w1"].startswith("ranks 0.1")


def test_a_new_one_gets_work_when_the_others_are_full() -> None:
    assert spread(6, MAIL, new("w1", 0), new("w2", 3600)) == ["w2"] * 4 + ["w1"] * 2


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
@examples(50)
def test_where_all_are_as_new_as_each_other_nobody_waits(ages: list[float]) -> None:
    alike = [new(f"w{n}", ages[0]) for n in range(len(ages))]
    assert set(weights(alike, NOW, SPEC).values()) == {1.0}
    of_all = weights([new(f"w{n}", age) for n, age in enumerate(ages)], NOW, SPEC)
    assert max(of_all.values()) == 1.0
    assert min(of_all.values()) >= LEAST_RAMP


def test_a_fleet_that_has_just_started_has_its_work_spread_by_score() -> None:
    fleet = [worse(new("w1", 0)), new("w2", 0), new("w3", 0)]
    assert Counter(spread(4, MAIL, *fleet)) == {"w2": 2, "w3": 2}


# --- DEGRADED ------------------------------------------------------------------------------------


def test_one_that_is_degraded_comes_after_the_others_and_is_used_when_they_are_full() -> None:
    poor = replace(an_instance("w1"), state=State.DEGRADED)
    assert spread(7, MAIL, poor, an_instance("w2")) == ["w2"] * 4 + ["w1"] * 3


def test_how_far_after_them_is_a_setting() -> None:
    poor, good = an_instance("w1", state=State.DEGRADED), worse(an_instance("w2"))
    assert weighed(MAIL, poor, good).placement.instance == "w2"
    assert weighed(MAIL, poor, good, settings=knobs(degraded_weight=1.0)).placement.instance == "w1"


def test_a_fleet_that_is_degraded_as_a_whole_works_on() -> None:
    fleet = [an_instance(name, state=State.DEGRADED) for name in ("w1", "w2")]
    assert Counter(spread(8, MAIL, *fleet)) == {"w1": 4, "w2": 4}
    assert set(weights(fleet, NOW, SPEC).values()) == {1.0}


# --- crowding ------------------------------------------------------------------------------------


def test_where_it_runs_already_it_comes_last() -> None:
    found = weighed(MAIL, running("w1", mail=1), worse(running("w2", fetch=1)))
    assert found.placement.instance == "w1", "a quarter of 0.2 is less than 0.07"
    found = weighed(MAIL, running("w1", mail=2), worse(running("w2", fetch=2)))
    assert found.placement.instance == "w2", "and half of it is more"
    assert found.placement.reason == DIRECT_ALONE
    assert found.placement.score == score(worse(running("w2", fetch=2)), SPEC), "as it is shown"


def test_how_much_that_weighs_is_a_setting() -> None:
    fleet = running("w1", mail=2), worse(running("w2", fetch=2))
    assert weighed(MAIL, *fleet, settings=knobs(crowding=0.0)).placement.instance == "w1"
    assert weighed(MAIL, *fleet, settings=knobs(crowding=0.15)).placement.instance == "w2"


def test_own_placements_crowd_too() -> None:
    fleet = running("w1"), worse(running("w2"))
    placed = Placed()
    placed.add(MAIL, "w1")
    placed.add(MAIL, "w1")
    assert weighed(MAIL, *fleet, placed=placed).placement.instance == "w2"
    other = Placed()
    other.add(Demand("fetch"), "w1")
    other.add(Demand("fetch"), "w1")
    assert weighed(MAIL, *fleet, placed=other).placement.instance == "w1"


def test_what_waits_for_disk_or_network_is_crowded_by_all_that_does() -> None:
    fleet = running("w1", fetch=1), worse(running("w2", mail=1))
    assert weighed(COPY, *fleet).placement.instance == "w2", "a quarter of 0.5 is more than 0.07"
    assert weighed(MAIL, *fleet).placement.instance == "w1"
    assert weighed(COPY, *fleet, settings=knobs(io_crowding=0.2)).placement.instance == "w1"


def test_what_is_declared_by_the_submitter_alone_counts_as_such_a_task() -> None:
    """Its worker may be older, and tell nothing of it."""
    plain = a_profile([TASK, "copy"])
    fleet = [replace(i, profile=plain) for i in (running("w1", copy=1), worse(running("w2")))]
    assert weighed(COPY, *fleet).placement.instance == "w2"


def test_own_placements_of_any_such_task_count() -> None:
    fleet = running("w1"), worse(running("w2"))
    placed = Placed()
    placed.add(FETCH, "w1")
    assert weighed(COPY, *fleet, placed=placed).placement.instance == "w2"


def test_more_of_a_kind_than_slots_is_no_more_than_full() -> None:
    many = replace(running("w1", mail=9), inflight=0)
    full = replace(worse(running("w2", mail=4)), inflight=0)
    assert weighed(MAIL, many, full).placement.instance == "w1"


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5),
    st.sampled_from((0.0, 0.2, 0.9, 5.0)),
    st.booleans(),
)
def test_crowding_leaves_no_slot_empty(
    fleet: list[tuple[int, int]], weight: float, io: bool
) -> None:
    """However much is taken off: it decides among free slots, and never against them all."""
    instances = [running(f"w{n}", mail=a, copy=b, slots=8) for n, (a, b) in enumerate(fleet)]
    demand, settings = COPY if io else MAIL, knobs(crowding=weight, io_crowding=weight)
    free = sum(8 - a - b for a, b in fleet)
    found = spread(free + 1, demand, *instances, settings=settings)
    assert None not in found[:free]
    assert found[free:] == [None]


def test_only_the_first_few_are_looked_at_closely() -> None:
    crowded = [running(f"w{n}", mail=3) for n in range(CHOICES)]
    found = weighed(MAIL, *crowded, worse(running("w9")))
    assert found.placement.instance == "w0"
    assert why_not(found)["w9"] == f"is not among the {CHOICES} that rank first"
    assert weighed(MAIL, *crowded[1:], worse(running("w9"))).placement.instance == "w9"


# --- room for what a task declares ---------------------------------------------------------------


def test_a_task_of_several_slots_finds_all_of_them_or_none() -> None:
    wide = Demand(TASK, slots=3)
    found = weighed(wide, an_instance("w1", held=2), worse(an_instance("w2", held=1)))
    assert found.placement.instance == "w2"
    full = weighed(wide, an_instance("w1", held=2), an_instance("w2", held=2))
    assert (full.placement.instance, full.placement.reason) == (None, SHARED_COSTLY)
    assert set(why_not(full).values()) == {"has no room for what this task declares"}


def test_it_takes_all_of_them() -> None:
    assert spread(3, Demand(TASK, slots=3), an_instance("w1", slots=6)) == ["w1", "w1", None]
    placed = Placed()
    placed.add(Demand("wide", slots=3), "w1")
    assert weighed(MAIL, an_instance("w1"), placed=placed).placement.instance == "w1"
    placed.add(MAIL, "w1")
    assert weighed(MAIL, an_instance("w1"), placed=placed).placement.reason == SHARED_BUSY


def test_slots_that_running_tasks_declare_are_taken() -> None:
    busy = an_instance("w1", load=a_load(slots=4, extra=2), held=1)
    assert busy.held == 3
    assert weighed(MAIL, busy).placement.instance == "w1"
    assert weighed(Demand(TASK, slots=2), busy).placement.instance is None


@pytest.mark.parametrize(
    ("load", "slots", "limit"),
    [
        case("one of four", {}, 1, 4),
        case("what it takes is told beside it", {}, 3, 4),
        case("what runs declares more too", {"extra": 1}, 1, 3),
        case("and what is acknowledged early is no message", {"early": 1}, 2, 3),
    ],
)
def test_the_write_is_told_how_many_may_be_there(
    load: dict[str, int], slots: int, limit: int
) -> None:
    instance = an_instance("w1", load=a_load(slots=4, **load), epoch=7)
    placement = weighed(Demand(TASK, slots=slots), instance).placement
    assert (placement.instance, placement.epoch, placement.limit) == ("w1", 7, limit)
    assert placement.cost == slots


def test_memory_is_given_once() -> None:
    big = Demand(TASK, memory=6)
    holds = replace(an_instance("w1"), profile=replace(a_profile(), memory=13))
    assert spread(3, big, holds) == ["w1", "w1", None]
    some_taken = replace(holds, load=a_load(reserved=8))
    assert weighed(big, some_taken).placement.reason == SHARED_COSTLY
    assert weighed(MAIL, some_taken).placement.instance == "w1", "which declares none"


def test_where_memory_is_unknown_it_is_no_bound() -> None:
    assert spread(3, Demand(TASK, memory=10**15), an_instance("w1", slots=3)) == ["w1"] * 3


# --- ejected -------------------------------------------------------------------------------------


def ejected(name: str, seconds: float) -> Instance:
    return an_instance(name, ejected_until=NOW + seconds, ejected_why="5 tasks in a row failed")


@pytest.mark.parametrize("demand", [MAIL, Demand(TASK, key="llama"), Demand(TASK, slots=2)])
def test_one_that_is_ejected_gets_nothing_and_says_why(demand: Demand) -> None:
    out = replace(ejected("w1", 12.4), load=a_load(keys=("llama",)))
    found = weighed(demand, out, worse(an_instance("w2", held=1)))
    assert found.placement.instance == "w2"
    assert why_not(found)["w1"] == "ejected for 12 s more: 5 tasks in a row failed"
    assert weighed(demand, out).placement.reason == SHARED_EMPTY


@pytest.mark.parametrize("seconds", [0.0, -0.1, -NOW])
def test_one_that_was_ejected_is_one_of_them_again(seconds: float) -> None:
    assert weighed(MAIL, ejected("w1", seconds)).placement.instance == "w1"
