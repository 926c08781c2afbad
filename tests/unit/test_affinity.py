"""Where a task goes that wants a warm cache: warm and free, then warm, then anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.affinity import Warmth, keys_of, warm_choice
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import DIRECT_BEST, DIRECT_WAIT, DIRECT_WARM, SHARED_BUSY
from nxs_tasks.policy.fleet.placer import Placer
from tests.unit.builders import (
    TASK,
    a_load,
    a_profile,
    a_snapshot,
    an_instance,
    case,
    examples,
    knobs,
)
from tests.unit.placing import SPEC, spread, weighed, why_not

LLAMA, OTHER = Demand(TASK, key="llama"), Demand(TASK, key="other")


def warm(name: str, keys: Iterable[str] = ("llama",), **known: Any) -> Instance:
    """One whose cache has these; with a lower score than one that has none."""
    slots, held = known.get("slots", 4), known.get("held", 0)
    load = a_load(slots=slots, running=held, load_avg=3.0, keys=tuple(keys))
    return an_instance(name, load=load, **known)


# --- which one -----------------------------------------------------------------------------------


def test_it_goes_where_its_key_is_warm_though_another_scores_better() -> None:
    found = weighed(LLAMA, an_instance("w1"), warm("w2"))
    assert (found.placement.instance, found.placement.reason) == ("w2", DIRECT_WARM)
    assert found.placement.key == "llama"
    assert why_not(found)["w1"] == "w2 has a warm cache"
    assert weighed(Demand(TASK), an_instance("w1"), warm("w2")).placement.instance == "w1"


def test_another_key_goes_where_any_task_would() -> None:
    found = weighed(OTHER, an_instance("w1"), warm("w2"))
    assert (found.placement.instance, found.placement.reason) == ("w1", DIRECT_BEST)
    assert found.placement.key == "other"


def test_of_several_the_shortest_line_for_each_slot_and_then_the_lower_id() -> None:
    assert weighed(LLAMA, warm("w1", held=2), warm("w2", held=1)).placement.instance == "w2"
    wide, narrow = warm("w1", held=3, slots=8), warm("w2", held=2, slots=4)
    assert weighed(LLAMA, wide, narrow).placement.instance == "w1"
    assert weighed(LLAMA, warm("w2"), warm("w1")).placement.instance == "w1"


def test_warm_and_free_then_warm_and_waiting_then_anywhere() -> None:
    """The line in front of the warm one may be 1 + 4 times its slots."""
    fleet = an_instance("w1", slots=4), warm("w2", slots=1, held=1)
    placer = Placer(a_snapshot(*fleet), SPEC)
    places = [placer.place(LLAMA) for _ in range(9)]
    assert [p.instance for p in places] == ["w2"] * 4 + ["w1"] * 4 + ["w1"]
    assert [p.reason for p in places[:4]] == [DIRECT_WAIT] * 4
    assert places[4].reason == DIRECT_BEST
    assert [p.reason for p in places[5:8]] == [DIRECT_WARM] * 3, "where the copy is now"
    assert places[8].reason == DIRECT_WAIT


@pytest.mark.parametrize(("wait", "most"), [(0.0, 2), (0.5, 3), (1.0, 4), (4.0, 10)])
def test_how_long_a_warm_cache_is_waited_for_is_a_setting(wait: float, most: int) -> None:
    """So many for two slots; the one after them goes elsewhere."""
    fleet, settings = (an_instance("w1", slots=9), warm("w2", slots=2)), knobs(affinity_wait=wait)
    found = spread(most + 1, LLAMA, *fleet, settings=settings)
    assert found == ["w2"] * most + ["w1"]


@pytest.mark.parametrize(
    ("held", "limit"),
    [
        case("a free slot: as many as there are slots", 1, 4),
        case("no free one: as many as may wait", 4, 20),
    ],
)
def test_the_write_is_told_the_bound(held: int, limit: int) -> None:
    placement = weighed(LLAMA, warm("w1", held=held, epoch=3)).placement
    assert (placement.limit, placement.epoch) == (limit, 3)


def test_where_all_warm_ones_are_beyond_the_bound_and_all_others_full_it_is_shared() -> None:
    found = weighed(LLAMA, warm("w1", slots=1, held=1, queued=4), an_instance("w2", held=4))
    assert (found.placement.instance, found.placement.reason) == (None, SHARED_BUSY)
    assert found.placement.key == "llama", "whoever takes it learns what it wants"


@pytest.mark.parametrize(
    "cold",
    [
        case("it does not know the task", warm("w2", knows=["shop.report"])),
        case("it is leaving", warm("w2", state=State.LEAVING)),
        case("it is silent", warm("w2", silent_for=16)),
        case("it has no slots", warm("w2", slots=0)),
    ],
)
def test_a_warm_cache_is_of_no_use_if(cold: Instance) -> None:
    assert weighed(LLAMA, an_instance("w1"), cold).placement.instance == "w1"


def test_a_warm_one_needs_slots_and_memory_for_it() -> None:
    wide = Demand(TASK, key="llama", slots=3)
    assert weighed(wide, an_instance("w1"), warm("w2", held=1)).placement.reason == DIRECT_WARM
    assert weighed(wide, an_instance("w1"), warm("w2", held=2)).placement.reason == DIRECT_WAIT
    beyond = weighed(wide, an_instance("w1"), warm("w2", held=18))
    assert beyond.placement.instance == "w1"
    big = Demand(TASK, key="llama", memory=6)
    small = replace(warm("w2"), profile=replace(a_profile(), memory=5))
    assert weighed(big, an_instance("w1"), small).placement.instance == "w1"


def test_a_warm_one_may_score_below_the_threshold() -> None:
    """The score says how well it would run; the cache says that it will."""
    swamped = replace(warm("w2"), load=a_load(load_avg=9.0, latency_ms=900, keys=("llama",)))
    assert weighed(LLAMA, swamped, settings=knobs(threshold=0.9)).placement.instance == "w2"


# --- which keys are warm -------------------------------------------------------------------------


def test_own_placements_come_before_what_heartbeats_tell_and_push_the_oldest_out() -> None:
    placed, two = Placed(), knobs(affinity_keys=2)
    instance = warm("w1", ["a", "b", "c"])
    assert keys_of(instance, placed, two) == ("a", "b")
    placed.add(OTHER, "w1")
    assert keys_of(instance, placed, two) == ("other", "a")
    placed.add(Demand(TASK, key="a"), "w1")
    placed.add(OTHER, "w1")
    assert keys_of(instance, placed, two) == ("other", "a")
    assert keys_of(instance, placed, SPEC) == ("other", "a", "b", "c")


def test_a_cache_of_one_key_is_cold_again_after_another() -> None:
    fleet, one = [warm("w1"), an_instance("w2")], knobs(affinity_keys=1, affinity_wait=0.0)
    placed = Placed()
    placed.add(OTHER, "w1")
    assert weighed(LLAMA, *fleet, settings=one, placed=placed).placement.reason == DIRECT_BEST
    more = knobs(affinity_keys=2, affinity_wait=0.0)
    assert weighed(LLAMA, *fleet, settings=more, placed=placed).placement.reason == DIRECT_WARM


def test_the_index_forgets_what_is_pushed_out() -> None:
    placed, one = Placed(), knobs(affinity_keys=1)
    warmth = Warmth([warm("w1"), warm("w2", ["other"])], placed, one)
    assert [i.id for i in warmth.of("llama")] == ["w1"]
    placed.add(OTHER, "w1")
    warmth.placed("w1")
    assert warmth.of("llama") == []
    assert [i.id for i in warmth.of("other")] == ["w1", "w2"]
    assert warmth.of("unheard of") == []
    warmth.placed("w9")


def test_a_first_task_makes_its_instance_the_one_for_all_of_its_key() -> None:
    fleet = [an_instance(f"w{n}", slots=8) for n in (1, 2, 3)]
    placer = Placer(a_snapshot(*fleet), SPEC)
    wanted = [Demand(TASK, key=key) for key in "abcabcabc"]
    where = [placer.place(demand).instance for demand in wanted]
    assert where[:3] == ["w1", "w2", "w3"]
    assert where[3:] == where[:3] * 2


# --- the bound holds -----------------------------------------------------------------------------

instances = st.builds(
    warm,
    st.just("w1"),
    slots=st.integers(0, 4),
    held=st.integers(0, 12),
    queued=st.integers(0, 12),
)


@examples(200)
@given(instances, st.integers(1, 4), st.integers(0, 9), st.sampled_from((0.0, 0.5, 1.0, 4.0)))
def test_nobody_waits_behind_more_than_the_bound(
    instance: Instance, slots: int, placed: int, wait: float
) -> None:
    demand, settings = Demand(TASK, key="llama", slots=slots), knobs(affinity_wait=wait)
    found = warm_choice(demand, [instance], Placed({"w1": placed}), settings)
    pool = instance.load.slots or 0
    after = (instance.held or 0) + (instance.queued or 0) + placed + slots
    assert (found is not None) == (pool > 0 and after <= (1 + wait) * pool)
    if found is not None:
        assert found[1] == (1.0 if after <= pool else 1 + wait)
