"""Which waiting tasks move, from whom to whom: shapes, limits, and what must never happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.errors import SettingError
from nxs_tasks.model.decision import Decision, Migrate, Nothing
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet import rebalance as module
from nxs_tasks.policy.fleet.rebalance import rebalance
from tests.unit.builders import NOW, a_load, a_snapshot, an_instance, case, examples, knobs

SETTINGS = knobs()
SIDES = ("source", "target")
EVERY, HOLD = SETTINGS.migrate_every, SETTINGS.migrate_hold


def a_line(
    name: str,
    queued: int = 0,
    *,
    held: int | None = None,
    slots: int = 1,
    mean_s: float | None = None,
    **record: Any,
) -> Instance:
    """An instance whose slots are taken, unless `held` says otherwise, with so many waiting."""
    running = slots if held is None else held
    beat = a_load(slots=slots, running=running, mean_s=mean_s)
    rest: dict[str, Any] = {"load": beat, "inflight": running, "queued": queued, **record}
    return an_instance(name, **rest)


def of_totals(*totals: int) -> Snapshot:
    """A fleet with one slot each: `3` is one running task and two that wait."""
    lines = [a_line(f"w{n}", max(0, t - 1), held=min(1, t)) for n, t in enumerate(totals)]
    return a_snapshot(*lines)


def totals(snapshot: Snapshot) -> tuple[int, ...]:
    return tuple((i.inflight or 0) + (i.queued or 0) for i in snapshot.instances)


def plan(snapshot: Snapshot, now: float = NOW, **settings: Any) -> list[Decision]:
    return rebalance(snapshot, knobs(**settings), now)


def moves(snapshot: Snapshot, now: float = NOW, **settings: Any) -> list[Migrate]:
    return [d for d in plan(snapshot, now, **settings) if isinstance(d, Migrate)]


def why(snapshot: Snapshot, name: str, now: float = NOW, **settings: Any) -> str:
    found = [d for d in plan(snapshot, now, **settings) if isinstance(d, Nothing)]
    [reason] = [d.reason for d in found if d.instance == name]
    return reason


def started(instance: Instance) -> Instance:
    """What waits takes the free slots."""
    free = max(0, (instance.load.slots or 0) - (instance.inflight or 0))
    starts = min(free, instance.queued or 0)
    inflight = (instance.inflight or 0) + starts
    return replace(instance, inflight=inflight, queued=(instance.queued or 0) - starts)


def applied(snapshot: Snapshot, migrations: Sequence[Migrate], now: float = NOW) -> Snapshot:
    """The fleet after all of them, as the store would tell it."""
    found = {i.id: i for i in snapshot.instances}
    for m in migrations:
        a, b = found[m.source], found[m.target]
        found[a.id] = replace(a, queued=(a.queued or 0) - m.tasks, migrated_at=now)
        found[b.id] = replace(b, queued=(b.queued or 0) + m.tasks, migrated_at=now, received_at=now)
    return replace(snapshot, instances=tuple(started(i) for i in found.values()))


def rounds(snapshot: Snapshot, most: int = 20) -> tuple[Snapshot, int]:
    """Migrate until nothing moves any more, while nothing ends; the fleet, and how often."""
    for number in range(most):
        now = NOW + number * EVERY
        snapshot = replace(
            snapshot,
            taken_at=now,
            instances=tuple(replace(i, beat_at=now) for i in snapshot.instances),
        )
        found = moves(snapshot, now)
        if not found:
            return snapshot, number
        snapshot = applied(snapshot, found, now)
    raise AssertionError(f"still moving after {most} rounds: {totals(snapshot)}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        case("one that runs stays", (1, 0), (1, 0)),
        case("one that waits goes to who is idle", (2, 0), (1, 1)),
        case("not more than the half", (3, 0), (2, 1)),
        case("from the larger one", (2, 3, 0), (2, 2, 1)),
        case("to the idle one", (3, 1, 0), (2, 1, 1)),
        case("each idle one gets one", (4, 0, 0), (2, 1, 1)),
        case("one gives, if one is idle", (2, 2, 2, 0), (2, 2, 1, 1)),
        case("level is level", (5, 5, 5), (5, 5, 5)),
        case("a difference of one is none", (5, 4, 5), (5, 4, 5)),
        case("nothing is nothing", (0, 0), (0, 0)),
    ],
)
def test_shapes(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    reached, _ = rounds(of_totals(*before))
    assert totals(reached) == after


def test_a_costly_task_stays_where_it_would_be_done_sooner() -> None:
    slow = a_line("w2", held=0, mean_s=30.0)
    fleet = a_snapshot(a_line("w1", 2, mean_s=1.0), slow)
    assert moves(fleet) == []
    assert why(fleet, "w1") == "to move a task would gain nothing"
    [move] = moves(a_snapshot(a_line("w1", 100, mean_s=1.0), slow))
    assert move.tasks == 1, "of 101 s it takes 30 off"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        case("consumes nothing", {"consuming": False}, "its consumer takes no work"),
        case("degraded", {"state": State.DEGRADED}, "is DEGRADED"),
        case("leaving", {"state": State.LEAVING}, "is LEAVING"),
        case("joining", {"state": State.JOINING}, "is JOINING"),
        case("silent", {"silent_for": 20.0}, "silent for 20 s"),
        case("not for the shared queue", {"consumes": ("video",)}, "does not consume celery"),
        case("of unknown slots", {"slots": None}, "its slots or its line are unknown"),
        case("of an unknown line", {"queued": None}, "its slots or its line are unknown"),
    ],
)
def test_who_takes_no_work_receives_nothing(target: dict[str, Any], reason: str) -> None:
    fleet = a_snapshot(a_line("w1", 50), an_instance("w2", **target))
    assert moves(fleet) == []
    if target.get("state") in (State.LEAVING, State.JOINING) or "unknown" in reason:
        assert why(fleet, "w2") == reason
    assert why(fleet, "w1") == "nobody who may receive knows its tasks"


def test_one_that_is_degraded_gives() -> None:
    [move] = moves(a_snapshot(a_line("w1", 50, state=State.DEGRADED), a_line("w2", held=0)))
    assert (move.source, move.source_state) == ("w1", State.DEGRADED)


def test_started_tasks_stay() -> None:
    assert moves(a_snapshot(a_line("w1", 0, held=8, slots=1), a_line("w2", held=0))) == []


def test_what_the_target_runs_counts() -> None:
    fleet = a_snapshot(a_line("w1", 4, slots=4), a_line("w2", 0, held=3, slots=4))
    [move] = moves(fleet)
    assert move.tasks == 2, "8 and 3: the half of 5"


def test_without_a_mean_tasks_are_counted() -> None:
    [move] = moves(a_snapshot(a_line("w1", 40), a_line("w2", held=0)))
    assert (move.tasks, move.evidence["unit"]) == (20, "tasks")


def test_an_unknown_mean_is_that_of_the_fleet() -> None:
    fleet = [a_line("w1", 40), a_line("w2", held=0, mean_s=2.0), a_line("w3", held=1, mean_s=4.0)]
    [move] = moves(a_snapshot(*fleet))
    assert move.evidence["source_each"] == 3.0
    assert move.evidence["unit"] == "s"


@pytest.mark.parametrize(
    ("longer", "shorter", "slots", "moved"),
    [
        case("three times, but a gap of less than two for each slot", 3, 1, 2, 0),
        case("three times and the gap", 12, 4, 1, 4),
        case("less than three times", 11, 4, 1, 0),
        case("beside nothing the gap is enough", 3, 0, 1, 1),
    ],
)
def test_the_trigger(longer: int, shorter: int, slots: int, moved: int) -> None:
    fleet = a_snapshot(a_line("w1", longer, slots=slots), a_line("w2", shorter, slots=slots))
    assert sum(m.tasks for m in moves(fleet)) == moved


def test_a_line_is_weighed_in_seconds() -> None:
    quick, slow = a_line("w1", 100, mean_s=0.1), a_line("w2", 20, mean_s=5.0)
    [move] = moves(a_snapshot(quick, slow))
    assert (move.source, move.target) == ("w2", "w1"), "100 s to 10 s"
    # Each moved one takes 5 s off here and puts 5 s there: whoever runs it.
    assert move.tasks == 9


def test_a_moved_task_lasts_as_long_as_on_the_slower_of_the_two() -> None:
    fleet = [a_line("w1", 100, mean_s=0.1), a_line("w2", 20, mean_s=5.0)]
    [move] = moves(a_snapshot(*fleet, a_line("w3", held=0, state=State.DEGRADED)))
    assert move.evidence["mean_line"] == 38.367
    assert move.tasks == 5, "w1 lacks 28 s, and not 280 tasks of its own length"


def test_what_is_about_to_start_stays() -> None:
    [move] = moves(a_snapshot(a_line("w1", 12, slots=4), a_line("w2", 0, slots=4)))
    assert (move.after, move.tasks) == (4, 6)
    [move] = moves(a_snapshot(a_line("w1", 12, slots=4, held=3), a_line("w2", 0, slots=4, held=0)))
    assert move.after == 1, "for who is idle only what a free slot takes at this moment stays"
    starting = a_snapshot(a_line("w1", 3, slots=4, held=0), a_line("w2", 0, slots=4, held=0))
    assert moves(starting) == []
    assert why(starting, "w1") == "what waits is about to start"


def test_caps() -> None:
    fleet = a_snapshot(a_line("w1", 1000), a_line("w2", held=0, slots=64))
    assert [m.tasks for m in moves(fleet)] == [500], "the half of a line"
    assert [m.tasks for m in moves(fleet, migrate_most=7)] == [7]


def test_one_tick_moves_only_so_many() -> None:
    lines = [a_line(f"a{n}", 20_000) for n in range(6)]
    fleet = a_snapshot(*lines, *(a_line(f"b{n}", held=0) for n in range(6)))
    assert sum(m.tasks for m in moves(fleet)) == module.MOST_A_TICK
    reasons = {d.reason for d in plan(fleet) if isinstance(d, Nothing) and d.instance[0] == "a"}
    assert reasons == {"as many tasks as one tick moves are moving already"}


class TestLimits:
    def test_an_instance_takes_part_in_one_migration_in_its_time(self) -> None:
        fleet = [a_line("w1", 50, migrated_at=NOW - EVERY + 1), a_line("w2", held=0)]
        assert moves(a_snapshot(*fleet)) == []
        assert why(a_snapshot(*fleet), "w1") == "took part in a migration 59 s ago: one in 60 s"
        assert len(moves(a_snapshot(*fleet), NOW + 1)) == 1
        fleet = [a_line("w1", 50), a_line("w2", held=0, migrated_at=NOW - 1)]
        assert moves(a_snapshot(*fleet)) == []

    def test_who_received_does_not_give(self) -> None:
        fleet = a_snapshot(a_line("w1", 3, received_at=NOW - HOLD + 1), a_line("w2", held=0))
        assert moves(fleet) == []
        assert "it has received itself lately" in why(fleet, "w1")
        assert len(moves(fleet, NOW + 1)) == 1

    def test_unless_its_line_is_far_longer(self) -> None:
        received: dict[str, Any] = {"received_at": NOW - 100}
        assert moves(a_snapshot(a_line("w1", 23, **received), a_line("w2", 4))) == []
        assert len(moves(a_snapshot(a_line("w1", 24, **received), a_line("w2", 4)))) == 1

    def test_a_hold_shorter_than_the_rest_is_refused(self) -> None:
        with pytest.raises(SettingError, match="migrate_hold"):
            knobs(migrate_every=60.0, migrate_hold=59.0)


class TestRegistry:
    def test_a_target_knows_some_of_the_tasks(self) -> None:
        fleet = [a_line("w1", 50, knows=("a", "b")), a_line("w2", held=0, knows=("b", "c"))]
        [move] = moves(a_snapshot(*fleet))
        assert move.knows == {"b", "c"}

    def test_one_that_knows_none_of_them_is_no_target(self) -> None:
        fleet = a_snapshot(a_line("w1", 50, knows=("a",)), a_line("w2", held=0, knows=("c",)))
        assert moves(fleet) == []
        assert why(fleet, "w1") == "nobody who may receive knows its tasks"

    def test_rather_one_that_knows_all(self) -> None:
        some, all_ = a_line("w2", held=0, knows=("a",)), a_line("w3", held=0, knows=("a", "b"))
        [move] = moves(a_snapshot(a_line("w1", 50, knows=("a", "b")), some, all_))
        assert move.target == "w3"

    def test_the_mean_is_that_of_those_who_know_them(self) -> None:
        others = [a_line(f"x{n}", held=0, knows=("other",)) for n in range(20)]
        fleet = [a_line("w1", 100, knows=("a",)), a_line("w2", held=0, knows=("a",)), *others]
        [move] = moves(a_snapshot(*fleet))
        assert move.tasks == 50

    def test_what_waits_for_a_warm_cache_is_left_to_it_for_a_while(self) -> None:
        source, target = a_line("w1", 50, mean_s=2.0), a_line("w2", held=0, mean_s=3.0)
        warm = replace(target, load=replace(target.load, keys=("a", "b", "c")))
        [move] = moves(a_snapshot(source, warm), affinity_keys=2, affinity_wait=4.0)
        assert (move.warm, move.cold_after) == (("a", "b"), 12.0)
        [move] = moves(a_snapshot(a_line("w1", 50), a_line("w2", held=0)))
        assert (move.warm, move.cold_after) == ((), 0.0)


# --- properties --------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn, *, alike: bool = False) -> Snapshot:
    count = draw(st.integers(1, 12))
    lines = []
    for n in range(count):
        slots = draw(st.integers(1, 8))
        held = draw(st.integers(0, slots))
        mean = None if alike else draw(st.none() | st.floats(0.0, 1000.0))
        states = [State.ACTIVE] * 6 + [State.DEGRADED, State.LEAVING, State.ZOMBIE]
        ago = draw(st.none() | st.floats(0.0, 400.0))
        record: dict[str, Any] = {} if alike else {"state": draw(st.sampled_from(states))}
        if ago is not None and not alike:
            record["migrated_at"] = NOW - ago
            record["received_at"] = NOW - ago if draw(st.booleans()) else None
        knows = ("a",) if alike else tuple(draw(st.sets(st.sampled_from("abc"), min_size=1)))
        queued = draw(st.integers(0, 3) | st.integers(0, 20_000)) if held == slots else 0
        lines.append(
            a_line(f"w{n}", queued, held=held, slots=slots, mean_s=mean, knows=knows, **record)
        )
    return a_snapshot(*lines)


@given(fleet=fleets())
@examples(300)
def test_what_a_plan_never_does(fleet: Snapshot) -> None:
    decisions = plan(fleet)
    found = [d for d in decisions if isinstance(d, Migrate)]
    ends = [end for m in found for end in (m.source, m.target)]
    assert len(ends) == len(set(ends)), "an instance takes part in one migration"
    stays = [d.instance for d in decisions if isinstance(d, Nothing)]
    assert sorted(ends + stays) == sorted(i.id for i in fleet.instances), "each has its reason"
    assert all(d.reason for d in decisions)
    for m in found:
        a, b = fleet.get(m.source), fleet.get(m.target)
        assert a is not None
        assert b is not None
        assert 1 <= m.tasks <= (a.queued or 0) - m.after
        assert b.state is State.ACTIVE
        assert b.profile is not None
        assert a.profile is not None
        assert b.profile.tasks & a.profile.tasks
        for end in (a, b):
            assert end.migrated_at is None or NOW - end.migrated_at >= EVERY
    assert sum(totals(applied(fleet, found))) == sum(totals(fleet))


@given(fleet=fleets())
@examples(200)
def test_nobody_who_took_part_takes_part_again(fleet: Snapshot) -> None:
    first = moves(fleet)
    ends = {end for m in first for end in (m.source, m.target)}
    again = moves(applied(fleet, first), NOW + EVERY / 2)
    assert not ends & {end for m in again for end in (m.source, m.target)}


@given(fleet=fleets(alike=True))
@examples(200)
def test_to_plan_again_at_once_gives_nothing(fleet: Snapshot) -> None:
    first = moves(fleet)
    assert moves(applied(fleet, first), NOW + 30.0) == []


@given(fleet=fleets(alike=True))
@examples(200)
def test_a_fleet_comes_to_rest_without_ping_pong(fleet: Snapshot) -> None:
    line, last_in = fleet, dict[str, float]()
    work = sum(totals(fleet))
    slots = sum(i.load.slots or 0 for i in fleet.instances)
    moved = made = 0
    for number in range(200):
        now = NOW + number * EVERY
        instances = tuple(replace(i, beat_at=now) for i in line.instances)
        line = replace(line, taken_at=now, instances=instances)
        found = moves(line, now)
        if not found and number * EVERY > HOLD:
            break
        for m in found:
            a, b = (m.evidence[f"{s}_waiting"] / m.evidence[f"{s}_slots"] for s in SIDES)
            far = a >= module.TIMES * module.FAR * b and a - b >= module.GAP * module.FAR
            assert now - last_in.get(m.source, 0.0) >= HOLD or far
            last_in[m.target] = now
        moved, made = moved + sum(m.tasks for m in found), made + len(found)
        line = applied(line, found, now)
    else:
        raise AssertionError("it does not come to rest")
    mean = work / slots
    above = [
        (i.inflight or 0) + (i.queued or 0) - mean * (i.load.slots or 0) for i in fleet.instances
    ]
    assert moved <= sum(max(0.0, a) for a in above) + made, "as few as can be, but for parts"
