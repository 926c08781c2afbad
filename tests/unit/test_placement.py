"""Where a task goes: late binding by score, the reasons, and one rule in two forms."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.decision import Explanation
from nxs_tasks.model.demand import Demand, Traits
from nxs_tasks.model.instance import Instance, Load
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import (
    DIRECT_BEST,
    DIRECT_ONLY,
    SHARED_BUSY,
    SHARED_EMPTY,
    SHARED_UNKNOWN,
    explain,
    has_free_slot,
)
from nxs_tasks.policy.fleet.placer import Placer
from nxs_tasks.policy.fleet.readiness import home, knower, unready
from nxs_tasks.policy.fleet.score import score
from nxs_tasks.settings import Settings
from tests.unit.builders import (
    GIB,
    NOW,
    SHARED,
    TASK,
    UNKNOWN_LOAD,
    a_load,
    a_profile,
    a_snapshot,
    an_instance,
    case,
    examples,
    knobs,
)

SPEC = knobs()
OTHER = "shop.report"


def placed_by(
    *instances: Instance, task: str = TASK, settings: Settings = SPEC, **placed: int
) -> Explanation:
    """Both forms of the rule on one task; they must agree."""
    snapshot = a_snapshot(*instances)
    explanation = explain(task, snapshot, settings, Placed(placed))
    assert Placer(snapshot, settings, Placed(placed)).place(task) == explanation.placement
    return explanation


def why_not(explanation: Explanation) -> dict[str, str]:
    return {c.instance: c.why_not for c in explanation.candidates}


def a_busy_machine(**more: Any) -> Load:
    """A heartbeat that scores below an idle one, and above the threshold."""
    return a_load(load_avg=2.0, **more)


def a_swamped_machine(**more: Any) -> Load:
    """A heartbeat that scores below the threshold."""
    return a_load(load_avg=9.0, memory_used=8 * GIB, latency_ms=900.0, **more)


def a_full_one(name: str) -> Instance:
    return an_instance(name, slots=2, held=2)


def unknowing(name: str) -> Instance:
    return an_instance(name, knows=[OTHER])


# --- the choice --------------------------------------------------------------------------------


def test_the_highest_score_wins() -> None:
    found = placed_by(
        an_instance("w1", load=a_busy_machine()), an_instance("w2"), an_instance("w3", queued=3)
    )
    assert found.placement.instance == "w2"
    assert found.placement.reason == DIRECT_BEST
    assert found.placement.score == score(an_instance("w2"), SPEC)


def test_a_tie_goes_to_the_lower_id() -> None:
    found = placed_by(an_instance("w2"), an_instance("w1"), an_instance("w10"))
    assert found.placement.instance == "w1"
    assert why_not(found)["w10"] == why_not(found)["w2"] == "same rank, w1 comes first"


def test_a_tie_goes_to_the_lower_id_in_whatever_order_the_instances_come() -> None:
    snapshot = a_snapshot(an_instance("w1"), an_instance("w2"))
    turned = replace(snapshot, instances=snapshot.instances[::-1])
    assert explain(TASK, turned, SPEC).placement.instance == "w1"
    assert Placer(turned, SPEC).place(TASK).instance == "w1"


def test_a_better_score_without_a_free_slot_loses() -> None:
    found = placed_by(an_instance("w1", slots=2, held=2), an_instance("w2", load=a_busy_machine()))
    assert found.placement.instance == "w2"
    assert why_not(found) == {"w1": "no free slot", "w2": ""}


@pytest.mark.parametrize(
    ("instance", "placed", "free"),
    [
        case("an idle instance has a free slot", an_instance(slots=1), 0, True),
        case("a held task takes the only slot", an_instance(slots=1, held=1), 0, False),
        case("a queued task takes the only slot", an_instance(slots=1, queued=1), 0, False),
        case("an own placement takes the only slot", an_instance(slots=1), 1, False),
        case(
            "one held for a later time will take a slot", an_instance(slots=1, waiting=1), 0, False
        ),
        case(
            "one that acknowledged early runs all the same",
            an_instance(slots=2, held=1, load=a_load(slots=2, early=1)),
            0,
            False,
        ),
        case("held, queued and placed add up", an_instance(slots=4, held=1, queued=2), 1, False),
        case("one slot of four is left", an_instance(slots=4, held=1, queued=1), 1, True),
        case("an unknown depth of the own queue hides no slot", an_instance(queued=None), 0, True),
        case("a worker without slots has none free", an_instance(slots=0), 0, False),
        case("more held than slots is full", an_instance(slots=1, held=5), 0, False),
    ],
)
def test_a_free_slot(instance: Instance, placed: int, free: bool) -> None:
    assert has_free_slot(instance, SPEC, placed) is free
    found = placed_by(instance, w1=placed)
    assert found.placement.instance == ("w1" if free else None)
    assert found.placement.reason == (DIRECT_BEST if free else SHARED_BUSY)


@pytest.mark.parametrize(
    ("saturation", "line", "free"),
    [(1.0, 9, True), (1.0, 10, False), (1.1, 10, True), (1.1, 11, False), (2.0, 19, True)],
)
def test_saturation_lets_a_line_grow_over_the_slots(
    saturation: float, line: int, free: bool
) -> None:
    instance = an_instance(slots=10, held=line)
    assert has_free_slot(instance, knobs(saturation=saturation)) is free


def test_a_score_must_be_above_the_threshold() -> None:
    found = placed_by(an_instance("w1", load=a_swamped_machine()))
    assert (found.placement.instance, found.placement.score) == (None, None)
    assert found.placement.reason == SHARED_BUSY
    assert why_not(found)["w1"].startswith("score 0.")
    assert why_not(found)["w1"].endswith("is not above 0.5")


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    only_cpu = {"cpu": 1, "memory": 0, "queue": 0, "latency": 0, "reliability": 0}
    half = an_instance(load=a_load(load_avg=2.0, cores=4))
    assert placed_by(half, settings=knobs(weights=only_cpu)).placement.instance is None
    lower = knobs(weights=only_cpu, threshold=0.49)
    assert placed_by(half, settings=lower).placement.instance == "w1"


def test_an_instance_of_which_nothing_is_known_is_not_chosen_by_score() -> None:
    blind = an_instance(
        load=replace(UNKNOWN_LOAD, slots=4, consuming=True), queued=None, held=0, waiting=None
    )
    found = placed_by(blind)
    assert found.placement.instance is None
    assert why_not(found) == {"w1": "nothing is known of its load"}


def test_placements_since_the_snapshot_lower_the_score() -> None:
    found = placed_by(an_instance("w1"), an_instance("w2"), w1=1)
    assert found.placement.instance == "w2"
    assert why_not(found)["w1"].startswith("ranks 0.843333, below 0.8")


def test_placements_on_an_instance_that_left_the_snapshot_are_kept_and_harmless() -> None:
    placer = Placer(a_snapshot(an_instance("w1")), SPEC, Placed({"w9": 3}))
    assert placer.place(TASK).instance == "w1"
    assert placer.placed.slots == {"w9": 3, "w1": 1}


def test_the_counts_that_were_given_are_not_changed() -> None:
    given_counts = {"w1": 1}
    Placer(a_snapshot(an_instance("w1")), SPEC, Placed(given_counts)).place(TASK)
    assert given_counts == {"w1": 1}


# --- the shared queue --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        case("there is no instance at all", [], SHARED_EMPTY),
        case("no instance is ready", [an_instance(state=State.JOINING)], SHARED_EMPTY),
        case(
            "every ready instance lacks the task",
            [an_instance("w1", knows=[OTHER]), an_instance("w2", knows=[])],
            SHARED_UNKNOWN,
        ),
        case(
            "every ready instance is full",
            [an_instance("w1", slots=1, held=1), an_instance("w2", slots=1, queued=1)],
            SHARED_BUSY,
        ),
        case(
            "one is full and the other scores too low",
            [
                an_instance("w1", slots=1, held=1),
                an_instance("w2", load=a_swamped_machine()),
            ],
            SHARED_BUSY,
        ),
    ],
)
def test_the_shared_queue_takes_it_when(instances: list[Instance], reason: str) -> None:
    placement = placed_by(*instances).placement
    assert (placement.task, placement.instance, placement.score) == (TASK, None, None)
    assert placement.reason == reason


# --- who is ready ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_only_active_and_degraded_instances_get_work(state: State) -> None:
    found = placed_by(an_instance("w1", state=state))
    if state in (State.ACTIVE, State.DEGRADED):
        assert found.placement.instance == "w1"
    else:
        assert found.placement.instance is None
        assert why_not(found) == {"w1": f"is {state}"}


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        case("its process has stopped", an_instance(stopped=True), "its process has stopped"),
        case("it has sent no heartbeat", an_instance(silent_for=None), "no heartbeat yet"),
        case("it has been silent for 16 s", an_instance(silent_for=16), "silent for 16 s"),
        case(
            "its consumer takes no work",
            an_instance(consuming=False),
            "its consumer takes no work",
        ),
        case(
            "its registered tasks are unknown",
            an_instance(knows=None),
            "its registered tasks are unknown",
        ),
        case(
            "it does not consume the shared queue",
            an_instance(consumes=["mail", "celery2"]),
            "does not consume celery",
        ),
        case("its slots are unknown", an_instance(slots=None), "its free slots are unknown"),
        case("what it holds is unknown", an_instance(held=None), "its free slots are unknown"),
        case("it does not know the task", an_instance(knows=[OTHER]), "does not register this"),
    ],
)
def test_an_instance_never_gets_work_when(instance: Instance, reason: str) -> None:
    alone = placed_by(instance)
    assert alone.placement.instance is None
    assert why_not(alone)["w1"].startswith(reason)
    # Nor when the other one is worse in every way.
    beside = placed_by(instance, an_instance("w2", load=a_busy_machine()))
    assert beside.placement.instance == "w2"


@pytest.mark.parametrize(
    "instance",
    [
        case("its last heartbeat is just young enough", an_instance(silent_for=15)),
        case("its clock is ahead of the server's", an_instance(silent_for=-3)),
        case("whether it consumes is unknown", an_instance(consuming=None)),
        case("it consumes other queues too", an_instance(consumes=["mail", SHARED])),
        case("its connections are unknown", an_instance(connections=None)),
        case("no task has ended there yet", an_instance(succeeded=0, failed=0)),
    ],
)
def test_an_instance_may_get_work_although(instance: Instance) -> None:
    assert unready(instance, a_snapshot(instance), SPEC) == ""
    assert placed_by(instance).placement.instance == "w1"


def test_what_is_held_is_what_runs_where_no_message_was_counted() -> None:
    instance = an_instance(slots=2, held=2, inflight=None)
    assert instance.held == 2
    assert placed_by(instance).placement.instance is None


def test_fewer_held_messages_than_waiting_tasks_are_none() -> None:
    assert an_instance(waiting=3, inflight=1).busy == 0


# --- a task that some know and some do not -----------------------------------------------------


def test_the_shared_queue_is_no_way_for_a_task_that_some_instances_do_not_know() -> None:
    found = placed_by(
        an_instance("w1", slots=2, held=2, queued=2),  # 4 in line for 2 slots
        an_instance("w2", slots=4, held=4, queued=1),  # 5 in line for 4 slots
        an_instance("w3", knows=[OTHER]),
    )
    assert found.placement.instance == "w2"
    assert found.placement.reason == DIRECT_ONLY
    assert found.placement.score == score(an_instance("w2", slots=4, held=4, queued=1), SPEC)
    assert why_not(found) == {
        "w1": "no free slot",
        "w2": "",
        "w3": "does not register this task",
    }


def test_among_equal_lines_the_lower_id_gets_it() -> None:
    found = placed_by(a_full_one("w2"), a_full_one("w1"), unknowing("w3"))
    assert found.placement.instance == "w1"


def test_own_placements_lengthen_the_line() -> None:
    found = placed_by(a_full_one("w1"), a_full_one("w2"), unknowing("w3"), w1=1)
    assert found.placement.instance == "w2"
    assert found.placement.score == score(a_full_one("w2"), SPEC)


def test_a_score_below_the_threshold_is_no_hindrance_for_the_only_one_that_knows() -> None:
    found = placed_by(an_instance("w1", load=a_swamped_machine()), unknowing("w2"))
    assert found.placement.instance == "w1"
    assert found.placement.reason == DIRECT_ONLY


def test_the_only_one_that_knows_gets_it_even_if_nothing_else_is_known_of_it() -> None:
    blind = an_instance(
        load=replace(UNKNOWN_LOAD, slots=4, consuming=True), queued=None, held=0, waiting=None
    )
    placement = placed_by(blind, unknowing("w2")).placement
    assert (placement.instance, placement.score, placement.reason) == ("w1", None, DIRECT_ONLY)


def test_the_only_one_that_knows_counts_as_one_slot_if_it_has_none() -> None:
    none = an_instance("w1", slots=0, held=0, queued=1)
    one = an_instance("w2", slots=1, held=1, queued=1)
    assert placed_by(none, one, unknowing("w3")).placement.instance == "w1"


@pytest.mark.parametrize(
    ("only", "where"),
    [
        case("alive: better there than where it is discarded", {"silent_for": 60}, "w1"),
        case("joining: likewise", {"state": State.JOINING}, "w1"),
        case("leaving: no", {"state": State.LEAVING}, None),
        case("gone: no", {"state": State.GONE}, None),
        case("stopped: no", {"stopped": True}, None),
    ],
)
def test_the_only_one_that_knows_the_task_is_not_ready_but(
    only: dict[str, Any], where: str | None
) -> None:
    found = placed_by(an_instance("w1", **only), unknowing("w2"))
    reason = DIRECT_ONLY if where else SHARED_UNKNOWN
    assert (found.placement.instance, found.placement.reason) == (where, reason)


@pytest.mark.parametrize(
    "other",
    [
        case("one that is joining", an_instance("w2", state=State.JOINING, knows=[OTHER])),
        case("one that was silent for a moment", an_instance("w2", silent_for=16, knows=[OTHER])),
        case("one whose slots are unknown", an_instance("w2", slots=None, knows=[OTHER])),
        case("one whose tasks are unknown", an_instance("w2", knows=None)),
    ],
)
def test_the_shared_queue_is_no_way_either_if_it_feeds(other: Instance) -> None:
    # Such a one takes no direct work, but it consumes the shared queue and discards the task.
    found = placed_by(an_instance("w1", slots=1, held=1), other)
    assert (found.placement.instance, found.placement.reason) == ("w1", DIRECT_ONLY)


def test_a_free_slot_comes_before_a_line() -> None:
    found = placed_by(
        an_instance("w1", slots=1, held=1),
        an_instance("w2", load=a_busy_machine()),
        unknowing("w3"),
    )
    assert (found.placement.instance, found.placement.reason) == ("w2", DIRECT_BEST)


# --- the explanation ---------------------------------------------------------------------------


def test_an_explanation_shows_the_terms_of_everyone() -> None:
    found = placed_by(an_instance("w1"), an_instance("w2", load=UNKNOWN_LOAD, queued=None))
    first, second = found.candidates
    assert first.terms.as_dict() == {
        "cpu": 0.75,
        "memory": 0.75,
        "queue": 1.0,
        "latency": 0.99,
        "reliability": None,
    }
    assert first.score == found.placement.score
    assert set(second.terms.as_dict().values()) == {None}
    assert second.score is None


def test_an_explanation_says_by_which_score_an_instance_lost() -> None:
    found = placed_by(an_instance("w1", load=a_busy_machine()), an_instance("w2"))
    score_of_w1 = found.candidates[0].score
    assert why_not(found) == {
        "w1": f"ranks {score_of_w1:.6f}, below {found.placement.score:.6f}",
        "w2": "",
    }


def test_contenders_are_few_and_the_best_comes_first() -> None:
    fleet = [an_instance(f"w{n}", queued=9 - n, slots=20) for n in range(1, 9)]
    placer = Placer(a_snapshot(*fleet, an_instance("w0", state=State.LEAVING)), SPEC)
    assert [i.id for i in placer.contenders(TASK, 3)] == ["w8", "w7", "w6"]
    assert len(placer.contenders(TASK, 99)) == 9
    assert [i.id for i in placer.contenders("unheard.of", 2)] == ["w0", "w1"]
    assert placer.place(TASK).instance == "w8"


def test_contenders_of_one_task_know_the_placements_of_another() -> None:
    fleet = [an_instance(f"w{n}", slots=1, knows=[TASK, OTHER]) for n in range(1, 5)]
    placer = Placer(a_snapshot(*fleet), SPEC)
    placer.contenders(OTHER, 1)
    placed = [placer.place(TASK).instance for _ in range(3)]
    assert placed == ["w1", "w2", "w3"]
    assert [i.id for i in placer.contenders(OTHER, 1)] == ["w4"]
    assert placer.place(OTHER).instance == "w4"


# --- properties --------------------------------------------------------------------------------

TASKS = ("a", "b", "c")
#: Few values, so that there are many ties.
LOADS = (
    a_load(),
    a_load(load_avg=2.0),
    a_swamped_machine(),
    a_load(load_avg=None, latency_ms=None),
    a_load(memory_total=None, cores=None),
    UNKNOWN_LOAD,
    a_load(types={"a": 1, "b": 1}, keys=("k1",)),
    a_load(types={"c": 2}, keys=("k2", "k1"), reserved=1, extra=1),
)
PROFILES = (
    replace(a_profile(TASKS), traits={"b": Traits(io=True), "c": Traits(io=True)}, memory=2),
    a_profile(["a"]),
    a_profile(["b"]),
    a_profile(["a", "c"]),
    a_profile([]),
    a_profile(TASKS, consumes=["mail"]),
    None,
)
tasks = st.lists(st.sampled_from((*TASKS, "unheard")), max_size=30)
a_demand = st.builds(
    Demand,
    task=st.sampled_from((*TASKS, "unheard")),
    key=st.sampled_from(("", "", "k1", "k2", "k3")),
    io=st.booleans(),
    slots=st.sampled_from((1, 1, 1, 2)),
    memory=st.sampled_from((0, 0, 1)),
)
demands = st.lists(a_demand, max_size=30)
names = st.lists(st.integers(1, 12), max_size=8, unique=True).map(
    lambda numbers: [f"w{n}" for n in numbers]
)
some_settings = st.builds(
    knobs,
    threshold=st.sampled_from((0.0, 0.5, 0.75, 0.9)),
    saturation=st.sampled_from((1.0, 1.1, 1.5, 3.0)),
    max_queue=st.sampled_from((1, 4, 100)),
    affinity_wait=st.sampled_from((0.0, 1.0, 4.0)),
    affinity_keys=st.sampled_from((1, 2)),
    degraded_weight=st.sampled_from((0.5, 1.0)),
)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """`usual` in four of five cases."""
    return st.sampled_from((usual,) * 4 * len(others) + others)


@st.composite
def instances(draw: st.DrawFn, name: str) -> Instance:
    """An instance in any condition, most often one that takes work."""
    slots = draw(mostly(2, 0, 1, 3, None))
    held = draw(st.sampled_from((0, 0, 1, 2, None)))
    waiting = draw(mostly(0, 1, 4, None))
    beat = replace(
        draw(st.sampled_from(LOADS)),
        slots=slots,
        running=draw(mostly(0, 1, None)),
        waiting=waiting,
        queued=draw(mostly(0, 2, None)),
        consuming=draw(mostly(True, False, None)),
    )
    return an_instance(
        name,
        state=draw(mostly(State.ACTIVE, *State)),
        since=NOW - draw(mostly(99.0, 0.0, 30.0)),
        load=beat,
        silent_for=draw(mostly(1.0, 15.0, 15.1, 99.0, None)),
        queued=draw(mostly(0, 1, 2, None)),
        inflight=None if held is None else held + (waiting or 0),
        stopped=draw(mostly(False, True)),
        succeeded=draw(st.sampled_from((0, 0, 3))),
        failed=draw(st.sampled_from((0, 0, 3))),
        profile=draw(mostly(*PROFILES)),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    """A fleet of any instances."""
    return a_snapshot(*[draw(instances(name)) for name in draw(names)])


counts = st.dictionaries(st.sampled_from([f"w{n}" for n in range(1, 14)]), st.integers(0, 3))


@examples(300)
@given(fleets(), some_settings, counts, demands)
def test_the_index_places_as_the_rule_says(
    snapshot: Snapshot, settings: Settings, placed: dict[str, int], sequence: list[Demand]
) -> None:
    placer, own = Placer(snapshot, settings, Placed(placed)), Placed(placed)
    for demand in sequence:
        expected = explain(demand, snapshot, settings, own).placement
        assert placer.place(demand) == expected
        if expected.instance is not None:
            own.add(demand, expected.instance)
        assert (placer.placed.slots, placer.placed.tasks) == (own.slots, own.tasks)


@st.composite
def equal_fleets(draw: st.DrawFn) -> Snapshot:
    """A fleet of ready instances of two kinds, so that nearly every choice is a tie."""
    kinds = draw(
        st.lists(
            st.builds(
                an_instance,
                load=st.sampled_from(LOADS[:3]).map(lambda beat: replace(beat, slots=3)),
                queued=st.integers(0, 1),
                knows=st.sampled_from((TASKS, ("a",), ("b", "c"))),
            ),
            min_size=1,
            max_size=2,
        )
    )
    return a_snapshot(*[replace(draw(st.sampled_from(kinds)), id=name) for name in draw(names)])


@examples(200)
@given(equal_fleets(), some_settings, demands)
def test_the_index_places_as_the_rule_says_among_equals(
    snapshot: Snapshot, settings: Settings, sequence: list[Demand]
) -> None:
    placer, own = Placer(snapshot, settings), Placed()
    for demand in sequence:
        expected = explain(demand, snapshot, settings, own).placement
        assert placer.place(demand) == expected
        if expected.instance is not None:
            own.add(demand, expected.instance)


def free_slots(instance: Instance, placed: int) -> int:
    """Slots that one more task would find free, of an instance whose figures are all known."""
    assert instance.load.slots is not None
    assert instance.queued is not None
    assert instance.inflight is not None
    return instance.load.slots - instance.inflight - instance.queued - placed


@examples(200)
@given(equal_fleets(), st.sampled_from((0.0, 0.5, 0.75)), tasks)
def test_no_slot_stays_free_while_a_task_goes_to_the_shared_queue(
    snapshot: Snapshot, threshold: float, sequence: list[str]
) -> None:
    settings = knobs(threshold=threshold, crowding=0)
    placer, counted = Placer(snapshot, settings), Counter[str]()
    for task in sequence:
        open_to_it = {
            i.id: value
            for i in snapshot.instances
            if i.profile is not None
            and task in i.profile.tasks
            and free_slots(i, counted[i.id]) > 0
            and (value := score(i, settings, counted[i.id])) is not None
            and value > threshold
        }
        placement = placer.place(task)
        if open_to_it:
            assert placement.instance in open_to_it
            assert placement.reason == DIRECT_BEST
            assert placement.score == max(open_to_it.values())
        else:
            assert placement.reason != DIRECT_BEST
        if placement.instance is not None:
            counted[placement.instance] += 1


@examples(60)
@given(names, st.integers(1, 4), st.integers(0, 40))
def test_an_idle_fleet_fills_up_evenly_and_then_the_shared_queue_takes_over(
    ids: list[str], slots: int, count: int
) -> None:
    snapshot = a_snapshot(*[an_instance(name, slots=slots) for name in ids])
    placer = Placer(snapshot, SPEC)
    chosen = [placer.place(TASK).instance for _ in range(count)]
    direct = min(count, slots * len(ids))
    assert None not in chosen[:direct]
    assert set(chosen[direct:]) <= {None}
    per_instance = [chosen.count(name) for name in ids]
    assert max(per_instance, default=0) <= slots
    assert max(per_instance, default=0) - min(per_instance, default=0) <= 1


@examples(60)
@given(fleets(), some_settings, counts, st.sampled_from((*TASKS, "unheard")))
def test_everyone_but_the_chosen_one_is_told_why_not(
    snapshot: Snapshot, settings: Settings, placed: dict[str, int], task: str
) -> None:
    found = explain(task, snapshot, settings, Placed(placed))
    assert [c.instance for c in found.candidates] == [i.id for i in snapshot.instances]
    assert found.placement.reason
    for candidate in found.candidates:
        assert bool(candidate.why_not) == (candidate.instance != found.placement.instance)
        if candidate.instance == found.placement.instance:
            assert candidate.score == found.placement.score


@examples(40)
@given(fleets(), some_settings, counts, st.randoms(use_true_random=False))
def test_the_order_of_the_instances_decides_nothing(
    snapshot: Snapshot, settings: Settings, placed: dict[str, int], chance: Any
) -> None:
    turned = list(snapshot.instances)
    chance.shuffle(turned)
    other = replace(snapshot, instances=tuple(turned))
    for task in TASKS:
        expected = explain(task, snapshot, settings, Placed(placed)).placement
        assert explain(task, other, settings, Placed(placed)).placement == expected
        assert Placer(other, settings, Placed(placed)).place(task) == expected


@examples(40)
@given(fleets(), some_settings, st.sampled_from(TASKS), st.integers(1, 10))
def test_the_first_choice_is_among_the_contenders(
    snapshot: Snapshot, settings: Settings, task: str, count: int
) -> None:
    placer = Placer(snapshot, settings)
    contenders = placer.contenders(task, count)
    assert len(contenders) == min(count, len(snapshot.instances))
    assert len({i.id for i in contenders}) == len(contenders)
    placement = placer.place(task)
    if placement.reason == DIRECT_BEST:
        assert contenders[0].id == placement.instance


# --- where a task goes that is given back --------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "where"),
    [
        case("nobody is there", [], "celery"),
        case("all who take from the shared queue know it", [an_instance("w2")], "celery"),
        case(
            "one does not know it: to one that does",
            [an_instance("w2"), unknowing("w3")],
            "own:w2",
        ),
        case("nobody knows it: it stays", [unknowing("w3")], None),
        case(
            "of those that know it the shortest line",
            [an_instance("w2", queued=2), an_instance("w4", queued=1), unknowing("w3")],
            "own:w4",
        ),
        case(
            "a zombie is no home where another knows it, however short its line",
            [an_instance("w2", state=State.ZOMBIE), an_instance("w4", queued=9), unknowing("w3")],
            "own:w4",
        ),
        case(
            "a zombie is one where nobody else knows it",
            [an_instance("w2", state=State.ZOMBIE), unknowing("w3")],
            "own:w2",
        ),
        case(
            "one that leaves too is no home",
            [an_instance("w2", state=State.LEAVING), unknowing("w3")],
            None,
        ),
        case(
            "one that ended takes nothing",
            [an_instance("w3", state=State.GONE, knows=[OTHER])],
            "celery",
        ),
    ],
)
def test_the_home_of_a_task_that_is_given_back(others: list[Instance], where: str | None) -> None:
    fleet = a_snapshot(an_instance("w1", state=State.GONE), *others)
    assert home(TASK, fleet, lambda i: f"own:{i}", "celery") == where


# --- who gets a task that its taker does not know ------------------------------------------------


@pytest.mark.parametrize(
    ("others", "who"),
    [
        case("nobody else is there", [], None),
        case("nobody else knows it", [unknowing("w2")], None),
        case("one knows it", [unknowing("w2"), an_instance("w3")], "w3"),
        case("what another knows is unknown", [an_instance("w2", knows=None)], None),
        case(
            "of those that know it the shortest line",
            [an_instance("w2", queued=2), an_instance("w3", held=1), an_instance("w4", queued=3)],
            "w3",
        ),
        case(
            "a line is measured in slots",
            [an_instance("w2", queued=2, slots=1), an_instance("w3", queued=3, slots=4)],
            "w3",
        ),
        case("of equal lines the lower id", [an_instance("w3"), an_instance("w2")], "w2"),
        case(
            "rather one that takes from the same queue",
            [an_instance("w2", consumes=["mail"]), an_instance("w3", queued=3)],
            "w3",
        ),
        case("also one that does not", [an_instance("w2", consumes=["mail"])], "w2"),
        case("one that joins", [an_instance("w2", state=State.JOINING)], "w2"),
        case("one that is silent", [an_instance("w2", silent_for=99)], "w2"),
        case("no zombie", [an_instance("w2", state=State.ZOMBIE)], None),
        case(
            "no zombie, however short its line",
            [an_instance("w2", state=State.ZOMBIE), an_instance("w3", queued=9)],
            "w3",
        ),
        case("nobody that leaves", [an_instance("w2", state=State.LEAVING)], None),
        case("nobody that has stopped", [an_instance("w2", stopped=True)], None),
        case("nobody that is gone", [an_instance("w2", state=State.GONE)], None),
        case("nobody that has failed", [an_instance("w2", state=State.FAILED)], None),
    ],
)
def test_a_task_that_its_taker_does_not_know_goes_to(
    others: list[Instance], who: str | None
) -> None:
    taker = unknowing("w1")
    assert knower(TASK, a_snapshot(taker, *others), SHARED, but="w1") == who


def test_one_that_is_ejected_is_the_last_to_be_given_anything() -> None:
    ejected = an_instance("w1", ejected_until=NOW + 30, ejected_why="its tasks fail")
    fleet = a_snapshot(ejected, an_instance("w2", queued=9), unknowing("w3"))
    assert home(TASK, fleet, lambda name: f"own:{name}", SHARED) == "own:w2"
    assert knower(TASK, fleet, SHARED, but="w3") == "w2"
    alone = a_snapshot(ejected, unknowing("w3"))
    assert knower(TASK, alone, SHARED, but="w3") == "w1"


def test_the_taker_is_not_asked_again_even_if_its_profile_names_the_task() -> None:
    assert knower(TASK, a_snapshot(an_instance("w1")), SHARED, but="w1") is None
    assert knower(TASK, a_snapshot(an_instance("w1")), SHARED, but="") == "w1"
