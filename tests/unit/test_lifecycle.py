"""The state machine of an instance: the table of spec 2.2, and the evidence that drives it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Decision, Forget, Nothing, Release, Transition
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, Event, State
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.transitions import TRANSITIONS, InvalidTransition, next_state
from nxs_tasks.settings import Settings
from tests.unit.builders import (
    HOUR,
    NOW,
    a_load,
    a_snapshot,
    an_instance,
    case,
    examples,
    knobs,
)

SPEC = knobs()
#: What the state machine decides.
Verdict = Transition | Release | Forget | Nothing


def decided(instance: Instance, settings: Settings = SPEC, **snapshot: Any) -> list[Decision]:
    return evaluate(a_snapshot(instance, **snapshot), settings, NOW)


def decision(instance: Instance, settings: Settings = SPEC, **snapshot: Any) -> Decision:
    [only] = decided(instance, settings, **snapshot)
    return only


def kinds(decisions: list[Decision]) -> list[type[Decision]]:
    return [type(d) for d in decisions]


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "event", "target"),
    [
        case("3 heartbeats: JOINING becomes ACTIVE", State.JOINING, Event.CONFIRMED, State.ACTIVE),
        case("errors: ACTIVE becomes DEGRADED", State.ACTIVE, Event.UNHEALTHY, State.DEGRADED),
        case("5 healthy: DEGRADED becomes ACTIVE", State.DEGRADED, Event.RECOVERED, State.ACTIVE),
        case("shutdown: ACTIVE becomes LEAVING", State.ACTIVE, Event.SHUTDOWN, State.LEAVING),
        case("drained: LEAVING becomes GONE", State.LEAVING, Event.DRAINED, State.GONE),
        case(
            "silent, connected: ACTIVE becomes ZOMBIE",
            State.ACTIVE,
            Event.SILENT_CONNECTED,
            State.ZOMBIE,
        ),
        case("terminated: ZOMBIE becomes GONE", State.ZOMBIE, Event.TERMINATED, State.GONE),
        case(
            "slow join: JOINING becomes FAILED", State.JOINING, Event.JOIN_TIMED_OUT, State.FAILED
        ),
    ],
)
def test_the_table_has_the_row_of_the_spec(source: State, event: Event, target: State) -> None:
    assert TRANSITIONS[source, event] is target
    assert next_state(source, event) is target


@pytest.mark.parametrize("state", [State.JOINING, State.ACTIVE, State.DEGRADED])
def test_who_lives_may_leave(state: State) -> None:
    assert next_state(state, Event.SHUTDOWN) is State.LEAVING


@pytest.mark.parametrize("state", [State.JOINING, State.ACTIVE, State.DEGRADED, State.LEAVING])
def test_who_lives_may_become_a_zombie(state: State) -> None:
    assert next_state(state, Event.SILENT_CONNECTED) is State.ZOMBIE


def test_a_zombie_that_wakes_begins_anew() -> None:
    assert next_state(State.ZOMBIE, Event.JOINED) is State.JOINING


def test_every_state_is_reached_from_joining() -> None:
    reached, frontier = {State.JOINING}, {State.JOINING}
    while frontier:
        frontier = {t for (s, _), t in TRANSITIONS.items() if s in frontier} - reached
        reached |= frontier
    assert reached == set(State)


def test_every_event_leads_somewhere() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_no_transition_leads_back_to_its_own_state() -> None:
    assert [s for (s, _), t in TRANSITIONS.items() if s is t] == []


@pytest.mark.parametrize("state", [s for s in State if s not in ENDED])
@pytest.mark.parametrize("event", [Event.SILENT_CLOSED, Event.REPLACED])
def test_a_process_that_is_really_gone_leaves_from_any_state(state: State, event: Event) -> None:
    assert next_state(state, event) is State.GONE


@pytest.mark.parametrize("state", sorted(ENDED))
def test_after_the_end_there_is_only_a_new_beginning(state: State) -> None:
    assert {e: t for (s, e), t in TRANSITIONS.items() if s is state} == {
        Event.JOINED: State.JOINING
    }


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.GONE, Event.CONFIRMED] = State.ACTIVE  # type: ignore[index]


@pytest.mark.parametrize(
    ("state", "event"), list(product(State, Event)), ids=lambda v: v.name.lower().replace("_", " ")
)
def test_a_pair_is_in_the_table_or_refused_by_name(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(InvalidTransition) as refused:
        next_state(state, event)
    text = str(refused.value)
    assert text.startswith(f"{state} has no transition on {event.name} ")
    possible = text.partition("it has: ")[2].split(", ")
    assert possible == [e.name for s, e in TRANSITIONS if s is state]
    assert isinstance(refused.value, NxsError)


# --- JOINING -----------------------------------------------------------------------------------


def a_newcomer(**more: Any) -> Instance:
    known: dict[str, Any] = {"state": State.JOINING, "beats": 3, "since": NOW - 3}
    return an_instance(**{**known, **more})


def test_a_newcomer_with_3_heartbeats_that_consumes_becomes_active() -> None:
    found = decision(a_newcomer(epoch=7))
    assert isinstance(found, Transition)
    assert (found.source, found.target, found.event) == (
        State.JOINING,
        State.ACTIVE,
        Event.CONFIRMED,
    )
    assert (found.instance, found.epoch) == ("w1", 7)
    assert found.reason == "3 consecutive heartbeats, consuming"
    assert found.evidence["beats"] == 3


def test_an_unknown_consumption_condemns_no_newcomer() -> None:
    [found] = evaluate(a_snapshot(a_newcomer(consuming=None)), Settings(), NOW)
    assert isinstance(found, Transition)
    assert found.reason == "3 consecutive heartbeats, whether it consumes is unknown"


def test_an_observer_that_was_away_gives_all_a_full_time_out_anew() -> None:
    silent = an_instance("w1", silent_for=500, connections=0)
    for observed_for, kind in ((9.0, Nothing), (11.0, Transition)):
        fleet = replace(a_snapshot(silent), observed_since=NOW - observed_for)
        assert [type(d) for d in evaluate(fleet, Settings(), NOW)] == [kind]


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        case("it has sent 2 heartbeats", a_newcomer(beats=2), "2 of 3 consecutive heartbeats"),
        case("it has sent none", a_newcomer(beats=0), "0 of 3 consecutive heartbeats"),
        case(
            "it does not consume",
            a_newcomer(consuming=False),
            "heartbeats are there, but it does not consume",
        ),
        case(
            "it consumes and has too few heartbeats",
            a_newcomer(beats=1, consuming=True),
            "1 of 3 consecutive heartbeats",
        ),
    ],
)
def test_a_newcomer_stays_as_it_is_when(instance: Instance, reason: str) -> None:
    found = decision(instance)
    assert (type(found), found.reason) == (Nothing, reason)


def test_how_many_heartbeats_confirm_is_a_setting() -> None:
    assert isinstance(decision(a_newcomer(beats=4), knobs(join_beats=5)), Nothing)
    assert isinstance(decision(a_newcomer(beats=5), knobs(join_beats=5)), Transition)


@pytest.mark.parametrize("connections", [2, None])
def test_a_newcomer_that_has_fallen_silent_is_not_confirmed(connections: int | None) -> None:
    assert isinstance(decision(a_newcomer(silent_for=10, connections=connections)), Transition)
    found = decision(a_newcomer(silent_for=11, connections=connections))
    assert (type(found), found.reason) == (Nothing, "3 heartbeats, but none for 11 s")


# --- GONE on silence ---------------------------------------------------------------------------

LIVING = [s for s in State if s not in ENDED]


@pytest.mark.parametrize("state", LIVING)
def test_silence_without_a_connection_is_the_end(state: State) -> None:
    found = decision(an_instance(state=state, silent_for=11, connections=0, held=2))
    assert isinstance(found, Transition)
    assert (found.source, found.target, found.event) == (state, State.GONE, Event.SILENT_CLOSED)
    assert "no heartbeat for 11 s" in found.reason
    assert "no connection" in found.reason
    assert found.evidence["silent_s"] == 11
    assert found.evidence["connections"] == 0


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        case(
            "its connections are unknown",
            an_instance(silent_for=30, connections=None),
            "silent for 30 s, the broker cannot say whether it is connected",
        ),
        case(
            "a connection is left",
            an_instance(silent_for=30, connections=1),
            "silent for 30 s, still 1 connection(s)",
        ),
        case(
            "it has been silent no longer than it may",
            an_instance(silent_for=10, connections=0),
            "",
        ),
        case(
            "it has sent its heartbeat just now",
            an_instance(silent_for=0, connections=0),
            "",
        ),
        case(
            "its heartbeat comes from the future",
            an_instance(silent_for=-5, connections=0),
            "",
        ),
    ],
)
def test_nobody_is_gone_when(instance: Instance, words: str) -> None:
    found = decision(instance)
    assert isinstance(found, Nothing)
    assert found.reason.startswith(words)


def test_who_never_sent_a_heartbeat_is_silent_since_it_announced_itself() -> None:
    def newcomer(age: float) -> Instance:
        return a_newcomer(silent_for=None, since=NOW - age, beats=0, connections=0)

    assert isinstance(decision(newcomer(9)), Nothing)
    found = decision(newcomer(12))
    assert isinstance(found, Transition)
    assert found.target is State.GONE
    assert found.evidence["silent_s"] == 12


@pytest.mark.parametrize(
    ("server_age", "gone"),
    [
        case("a server that has run for a day proves it", 24 * HOUR, True),
        case("a server that started 11 s ago proves it", 11, True),
        case("a server that started 10 s ago does not", 10, False),
        case("a server that started just now does not", 0, False),
        case("a server of unknown age proves it", None, True),
    ],
)
def test_silence_counts_from_the_start_of_the_server(server_age: float | None, gone: bool) -> None:
    found = decision(
        an_instance(silent_for=600, connections=0),
        server_started_at=None if server_age is None else NOW - server_age,
    )
    assert isinstance(found, Transition) is gone
    assert found.evidence["silent_s"] == (600 if server_age is None else min(600, server_age))


def test_how_long_silence_may_last_is_a_setting() -> None:
    settings = knobs(gone_after=100, zombie_after=100, evict_after=101)
    assert isinstance(decision(an_instance(silent_for=99, connections=0), settings), Nothing)
    assert isinstance(decision(an_instance(silent_for=101, connections=0), settings), Transition)


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEGRADED, State.ZOMBIE])
def test_who_sends_heartbeats_is_left_alone(state: State) -> None:
    assert isinstance(decision(an_instance(state=state)), Nothing)


def test_who_is_silent_a_little_longer_gets_no_new_work_and_that_is_told() -> None:
    assert decision(an_instance(silent_for=15)).reason == "healthy heartbeats"
    assert decision(an_instance(silent_for=16)).reason == (
        "silent for 16 s, still 2 connection(s): gets no new work"
    )


@pytest.mark.parametrize("state", LIVING)
def test_what_waits_for_who_is_gone_goes_to_others_at_once(state: State) -> None:
    found = decided(an_instance(state=state, silent_for=11, connections=0, queued=2))
    move, release = found
    assert isinstance(move, Transition)
    assert isinstance(release, Release)
    assert (release.source, release.epoch) == (State.GONE, 1), "as it is after the transition"


# --- ZOMBIE ------------------------------------------------------------------------------------


def a_zombie(silent_for: float = 40, **more: Any) -> Instance:
    return an_instance(**{"state": State.ZOMBIE, "silent_for": silent_for, **more})


@pytest.mark.parametrize("state", [s for s in LIVING if s is not State.ZOMBIE])
@pytest.mark.parametrize("connections", [1, None])
def test_who_is_silent_and_may_be_connected_becomes_a_zombie(
    state: State, connections: int | None
) -> None:
    def one(silent_for: float) -> Instance:
        return an_instance(state=state, silent_for=silent_for, connections=connections)

    assert not [d for d in decided(one(30)) if getattr(d, "target", None) is State.ZOMBIE]
    found = decision(one(31))
    assert isinstance(found, Transition)
    assert (found.source, found.target, found.event) == (
        state,
        State.ZOMBIE,
        Event.SILENT_CONNECTED,
    )
    assert found.reason == "no heartbeat for 31 s, " + (
        "the broker cannot say whether it is connected"
        if connections is None
        else "still 1 connection(s)"
    )


def test_silence_of_any_length_makes_a_zombie_first() -> None:
    assert decision(an_instance(silent_for=9999)).target is State.ZOMBIE  # type: ignore[union-attr]


def test_what_waits_for_a_zombie_goes_to_others_at_once() -> None:
    move, release = decided(an_instance(silent_for=31, queued=2, held=1))
    assert isinstance(move, Transition)
    assert isinstance(release, Release)
    assert (release.source, release.epoch) == (State.ZOMBIE, 1), "as it is after the transition"
    assert release.reason == "2 task(s) wait for an instance that takes none"


def test_what_was_placed_on_a_zombie_meanwhile_goes_to_others_too() -> None:
    release, nothing = decided(a_zombie(queued=1))
    assert isinstance(release, Release)
    assert (release.source, release.epoch) == (State.ZOMBIE, 1)
    assert (type(nothing), nothing.reason) == (
        Nothing,
        "no heartbeat for 40 s, still 2 connection(s)",
    )


def test_a_zombie_of_which_the_broker_says_nothing_stays_one() -> None:
    """Silence alone is one witness."""
    found = decision(a_zombie(3600, connections=None))
    assert isinstance(found, Nothing)
    assert "the broker cannot say whether it is connected" in found.reason


def test_a_zombie_that_stays_silent_is_gone() -> None:
    assert isinstance(decision(a_zombie(60, connections=1)), Nothing)
    found = decision(a_zombie(61, connections=1, held=3, epoch=4))
    assert isinstance(found, Transition)
    assert (found.source, found.target, found.event) == (
        State.ZOMBIE,
        State.GONE,
        Event.TERMINATED,
    )
    assert (found.epoch, found.evidence["held"]) == (4, 3)
    assert found.reason.startswith("no heartbeat for 61 s, ")


def test_what_waits_for_an_evicted_zombie_goes_to_others_at_once() -> None:
    move, release = decided(a_zombie(61, queued=1))
    assert isinstance(move, Transition)
    assert isinstance(release, Release)
    assert release.source is State.GONE


def test_a_zombie_whose_connections_close_is_gone_sooner() -> None:
    found = decision(a_zombie(40, connections=0))
    assert isinstance(found, Transition)
    assert (found.target, found.event) == (State.GONE, Event.SILENT_CLOSED)


def test_an_observer_that_was_away_evicts_nobody() -> None:
    for observed_for, kind in ((60.0, Nothing), (61.0, Transition)):
        fleet = replace(a_snapshot(a_zombie(500)), observed_since=NOW - observed_for)
        assert kinds(evaluate(fleet, SPEC, NOW)) == [kind]
    fleet = replace(a_snapshot(an_instance(silent_for=500)), observed_since=NOW - 30.0)
    assert kinds(evaluate(fleet, SPEC, NOW)) == [Nothing]


def test_how_long_a_silence_makes_a_zombie_and_ends_it_are_settings() -> None:
    settings = knobs(zombie_after=100, evict_after=200)
    assert isinstance(decision(an_instance(silent_for=100), settings), Nothing)
    assert isinstance(decision(an_instance(silent_for=101), settings), Transition)
    assert isinstance(decision(a_zombie(200), settings), Nothing)
    assert isinstance(decision(a_zombie(201), settings), Transition)


# --- LEAVING -----------------------------------------------------------------------------------


def a_leaver(**more: Any) -> Instance:
    return an_instance(**{"state": State.LEAVING, **more})


@pytest.mark.parametrize(
    ("instance", "kind", "reason"),
    [
        case(
            "it still runs two tasks",
            a_leaver(held=2),
            Nothing,
            "shutting down, still holds 2 task(s)",
        ),
        case(
            "it holds nothing and has not stopped",
            a_leaver(),
            Nothing,
            "shutting down, still holds 0 task(s)",
        ),
        case(
            "what it holds is unknown and it has not stopped",
            a_leaver(held=None),
            Nothing,
            "shutting down, still holds an unknown number of task(s)",
        ),
        case(
            "it has stopped and still holds one",
            a_leaver(stopped=True, held=1),
            Nothing,
            "stopped, and 1 held message(s) are not yet given back",
        ),
        case(
            "it has stopped and what it holds is unknown",
            a_leaver(stopped=True, held=None),
            Nothing,
            "stopped, what it holds is unknown",
        ),
        case(
            "it has stopped and its queue is unknown",
            a_leaver(stopped=True, queued=None),
            Nothing,
            "stopped, what it holds is unknown",
        ),
        case(
            "it has stopped and nothing is left",
            a_leaver(stopped=True),
            Transition,
            "its process has stopped, nothing is held, its queue is empty",
        ),
    ],
)
def test_a_leaving_instance(instance: Instance, kind: type[Decision], reason: str) -> None:
    found = decision(instance)
    assert (type(found), found.reason) == (kind, reason)


def test_a_leaving_instance_gives_its_queue_back_before_it_has_stopped() -> None:
    release, nothing = decided(a_leaver(held=1, queued=2))
    assert isinstance(release, Release)
    assert isinstance(nothing, Nothing)
    assert nothing.reason == "shutting down, still holds 1 task(s)"


def test_a_stopped_instance_is_gone_when_its_queue_was_given_back() -> None:
    release, move = decided(a_leaver(stopped=True, queued=3))
    assert isinstance(release, Release)
    assert release.reason == "3 task(s) wait for an instance that takes none"
    assert isinstance(move, Transition)
    assert move.reason == "its process has stopped, nothing is held, 3 wait in its queue"


def test_a_stopped_instance_that_holds_one_gives_its_queue_back_and_stays() -> None:
    release, nothing = decided(a_leaver(stopped=True, held=1, queued=1))
    assert isinstance(release, Release)
    assert isinstance(nothing, Nothing)


def test_a_drained_instance_is_gone() -> None:
    found = decision(a_leaver(stopped=True, epoch=3))
    assert isinstance(found, Transition)
    assert (found.target, found.event, found.epoch) == (State.GONE, Event.DRAINED, 3)


def test_a_leaving_instance_that_vanishes_is_gone_with_all_it_holds() -> None:
    found, release = decided(a_leaver(held=2, queued=2, silent_for=60, connections=0))
    assert isinstance(found, Transition)
    assert isinstance(release, Release)
    assert found.event is Event.SILENT_CLOSED
    assert (found.evidence["held"], found.evidence["queued"]) == (2, 2)


# --- after the end -----------------------------------------------------------------------------


def a_departed(age: float = 60.0, **more: Any) -> Instance:
    known: dict[str, Any] = {
        "state": State.GONE,
        "since": NOW - age,
        "silent_for": age + 60,
        "connections": 0,
    }
    return an_instance(**{**known, **more})


@pytest.mark.parametrize("state", sorted(ENDED))
@pytest.mark.parametrize(
    ("more", "kind", "reason"),
    [
        case("its record is kept for a while", {"age": 700.0}, Nothing, "is {}"),
        case("its record is kept for an hour", {"age": HOUR}, Nothing, "is {}"),
        case(
            "its record is removed after an hour",
            {"age": HOUR + 1},
            Forget,
            "{} for more than 3600 s",
        ),
        case(
            "its record is kept while it holds messages",
            {"age": 99 * HOUR, "held": 2},
            Nothing,
            "is {}, still named as holder of 2",
        ),
        case(
            "its record is kept while it holds messages for a later time",
            {"age": 99 * HOUR, "waiting": 1},
            Nothing,
            "is {}, still named as holder of 1",
        ),
    ],
)
def test_after_the_end(
    state: State, more: dict[str, Any], kind: type[Decision], reason: str
) -> None:
    found = decision(a_departed(state=state, **more))
    assert isinstance(found, Verdict)
    assert (type(found), found.reason) == (kind, reason.format(state))
    assert (found.source, found.epoch) == (state, 1)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_record_is_kept_while_tasks_wait_in_its_queue(state: State) -> None:
    release, nothing = decided(a_departed(2 * HOUR, state=state, queued=2))
    assert isinstance(release, Release)
    assert isinstance(nothing, Nothing)
    assert nothing.reason == "2 task(s) wait in its queue for who knows them"


def test_who_was_told_to_take_nothing_gives_its_queue_back() -> None:
    release, nothing = decided(an_instance(consuming=False, queued=2))
    assert isinstance(release, Release)
    assert isinstance(nothing, Nothing)
    assert "its consumer takes no work" in nothing.reason
    assert [type(d) for d in decided(an_instance(consuming=None, queued=2))] == [Nothing]


@pytest.mark.parametrize("unknown", ["held", "queued"])
def test_a_record_is_kept_while_what_is_left_is_unknown(unknown: str) -> None:
    assert isinstance(decision(a_departed(2 * HOUR, **{unknown: None})), Nothing)


def test_how_long_a_record_is_kept_is_a_setting() -> None:
    assert isinstance(decision(a_departed(60), knobs(gone_kept=59)), Forget)
    assert isinstance(decision(a_departed(60), knobs(gone_kept=61)), Nothing)


# --- the whole fleet ---------------------------------------------------------------------------


def test_an_empty_fleet_needs_no_decision() -> None:
    assert evaluate(a_snapshot(), SPEC, NOW) == []


def test_decisions_come_in_the_order_of_the_instances() -> None:
    snapshot = a_snapshot(
        an_instance("w3"), a_leaver(name="w2", queued=1), a_newcomer(name="w1", beats=1)
    )
    assert [d.instance for d in evaluate(snapshot, SPEC, NOW)] == ["w1", "w2", "w2", "w3"]


def test_a_life_from_announcement_to_oblivion() -> None:
    story = [
        a_newcomer(beats=2),
        a_newcomer(),
        an_instance(),
        a_leaver(queued=1),
        a_leaver(stopped=True),
        a_departed(2 * HOUR),
    ]
    assert [kinds(decided(chapter)) for chapter in story] == [
        [Nothing],
        [Transition],
        [Nothing],
        [Release, Nothing],
        [Transition],
        [Forget],
    ]
    moves = [d for chapter in story for d in decided(chapter) if isinstance(d, Transition)]
    assert [(m.source, m.target) for m in moves] == [
        (State.JOINING, State.ACTIVE),
        (State.LEAVING, State.GONE),
    ]


# --- properties --------------------------------------------------------------------------------

few = st.none() | st.integers(0, 3)
times = st.none() | st.floats(-10, 100) | st.sampled_from((10.0, 10.1, 30.1, 60.1, 3601.0))


@st.composite
def instances(draw: st.DrawFn, name: str) -> Instance:
    """An instance in any state with any evidence."""
    return an_instance(
        name,
        state=draw(st.sampled_from(State)),
        epoch=draw(st.integers(1, 9)),
        since=NOW - draw(st.sampled_from((0.0, 5.0, 60.0, 3600.0, 9999.0))),
        silent_for=draw(times),
        beats=draw(st.integers(0, 5)),
        inflight=draw(few),
        queued=draw(few),
        connections=draw(few),
        stopped=draw(st.booleans()),
        load=a_load(waiting=draw(few), consuming=draw(st.sampled_from((True, False, None)))),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    """A fleet of any instances on a server of any age."""
    count = draw(st.integers(0, 4))
    started = draw(st.sampled_from((None, 0.0, 5.0, 11.0, 9999.0)))
    return a_snapshot(
        *[draw(instances(f"w{n}")) for n in range(count)],
        server_started_at=None if started is None else NOW - started,
    )


@examples(80)
@given(fleets())
def test_everyone_gets_a_decision_with_reason_evidence_and_precondition(
    snapshot: Snapshot,
) -> None:
    decisions = evaluate(snapshot, SPEC, NOW)
    assert {d.instance for d in decisions} == {i.id for i in snapshot.instances}
    moved: dict[str, State] = {}
    for found in decisions:
        instance = snapshot.get(found.instance)
        assert instance is not None
        # What follows a transition is decided about the state after it.
        state = moved.get(found.instance, instance.state)
        assert isinstance(found, Verdict)
        assert (found.source, found.epoch) == (state, instance.epoch)
        if isinstance(found, Transition):
            moved[found.instance] = found.target
        assert found.reason
        assert found.evidence["connections"] == instance.connections
    order = [i.id for i in snapshot.instances]
    assert all(order.index(a.instance) <= order.index(b.instance) for a, b in pairwise(decisions))


@examples(150)
@given(fleets())
def test_every_transition_is_in_the_table_and_has_its_evidence(
    snapshot: Snapshot,
) -> None:
    longest_silence = {
        Event.SILENT_CLOSED: SPEC.gone_after,
        Event.SILENT_CONNECTED: SPEC.zombie_after,
        Event.TERMINATED: SPEC.evict_after,
    }
    moves = [d for d in evaluate(snapshot, SPEC, NOW) if isinstance(d, Transition)]
    for move in moves:
        instance = snapshot.get(move.instance)
        assert instance is not None
        assert TRANSITIONS[move.source, move.event] is move.target
        assert instance.state is move.source
        if move.event is Event.DRAINED:
            assert (instance.stopped, instance.inflight) == (True, 0)
            assert instance.queued is not None
        elif move.event in longest_silence:
            heard = instance.since if instance.beat_at is None else instance.beat_at
            silence = NOW - max(heard, snapshot.server_started_at or heard)
            assert silence > longest_silence[move.event]
            if move.event is Event.SILENT_CLOSED:
                assert instance.connections == 0
        elif move.event is Event.JOIN_TIMED_OUT:
            assert NOW - instance.since > SPEC.join_grace
        else:
            assert move.target is State.ACTIVE
            assert instance.beats >= 3
            assert instance.load.consuming is not False


@examples(100)
@given(fleets())
def test_a_record_is_forgotten_only_long_after_the_end_and_with_nothing_left(
    snapshot: Snapshot,
) -> None:
    decisions = evaluate(snapshot, SPEC, NOW)
    given_up = {d.instance for d in decisions if isinstance(d, Transition)}
    for found in decisions:
        instance = snapshot.get(found.instance)
        assert instance is not None
        if isinstance(found, Forget):
            assert instance.state in ENDED
            assert NOW - instance.since > SPEC.gone_kept
            assert not instance.inflight
            assert not instance.queued
        if isinstance(found, Release):
            assert instance.queued
            takes_none = instance.load.consuming is False or instance.id in given_up
            assert takes_none or instance.state in ENDED | {State.LEAVING, State.ZOMBIE}


# --- a consumer that takes no work -------------------------------------------------------------


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEGRADED])
def test_who_takes_no_work_for_4_heartbeats_is_a_zombie(state: State) -> None:
    deaf = an_instance(state=state, consuming=False, deaf=4, queued=2)
    move, release = decided(deaf)
    assert isinstance(move, Transition)
    assert (move.event, move.target, move.loss) == (Event.DEAF, State.ZOMBIE, True)
    assert "takes no work for 20 s" in move.reason
    assert isinstance(release, Release)


def test_a_single_heartbeat_without_work_is_none() -> None:
    found = decision(an_instance(consuming=False, deaf=3))
    assert isinstance(found, Nothing)
    assert "takes no work for 15 s: gets no new work" in found.reason


@pytest.mark.parametrize(
    ("deaf", "kind", "words"),
    [
        case("it stays one while it is deaf", 8, Nothing, "takes no work for 40 s"),
        case("it waits for its word once it works", 0, Nothing, "takes work again"),
        case("it is given up after a minute", 13, Transition, "takes no work for 65 s"),
    ],
)
def test_a_zombie_that_sends_heartbeats(deaf: int, kind: type[Decision], words: str) -> None:
    found = decision(an_instance(state=State.ZOMBIE, consuming=deaf == 0, deaf=deaf))
    assert isinstance(found, kind)
    assert words in found.reason


# --- health ------------------------------------------------------------------------------------


def test_three_unhealthy_heartbeats_make_it_degraded() -> None:
    load = a_load(unhealthy="shop.pay takes 2.4 s, 0.9 s before")
    found = decision(an_instance(load=load, sick=3))
    assert isinstance(found, Transition)
    assert (found.event, found.target, found.loss) == (Event.UNHEALTHY, State.DEGRADED, False)
    assert found.reason == "unhealthy in 3 heartbeats: shop.pay takes 2.4 s, 0.9 s before"


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        case("there were two", an_instance(sick=2), "healthy heartbeats"),
        case("they are old", an_instance(sick=9, silent_for=14.0), "healthy heartbeats"),
    ],
)
def test_it_stays_active_while(instance: Instance, words: str) -> None:
    found = decision(instance)
    assert isinstance(found, Nothing)
    assert found.reason == words


def test_five_healthy_heartbeats_make_it_active_again() -> None:
    found = decision(an_instance(state=State.DEGRADED, well=5))
    assert isinstance(found, Transition)
    assert (found.event, found.target) == (Event.RECOVERED, State.ACTIVE)


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        case("four are not enough", an_instance(state=State.DEGRADED, well=4), "4 of 5 healthy"),
        case(
            "it is unhealthy",
            an_instance(state=State.DEGRADED, well=0, load=a_load(unhealthy="errors")),
            "unhealthy: errors",
        ),
    ],
)
def test_it_stays_degraded_while(instance: Instance, words: str) -> None:
    found = decision(instance)
    assert isinstance(found, Nothing)
    assert words in found.reason


def test_waiting_tasks_go_back_to_the_default_queue_of_their_own_app() -> None:
    profile = Profile(tasks=frozenset(), queues=frozenset({"shop"}), shared="shop")
    gone = replace(an_instance("w1", state=State.GONE, queued=3), profile=profile)
    found, _ = evaluate(a_snapshot(gone), Settings(), NOW)
    assert isinstance(found, Release)
    assert found.target == "shop"


# --- an ejected instance -------------------------------------------------------------------------


def ejected(since_s: float, **known: Any) -> Instance:
    """One that ejected itself until so long ago."""
    until = {
        "ejected_until": NOW - since_s,
        "ejected_why": "its tasks fail",
        "ejections": 1,
        "well": 99,
    }
    return an_instance("w1", state=State.DEGRADED, **{**until, **known})


def test_while_it_is_ejected_what_waits_for_it_goes_to_others() -> None:
    release, nothing = decided(ejected(-20.0, queued=3))
    assert isinstance(release, Release)
    assert nothing.reason == "ejected for 20 s more: its tasks fail"
    assert kinds(decided(ejected(-20.0))) == [Nothing]


def test_it_is_active_again_when_it_has_worked_for_five_heartbeats() -> None:
    assert isinstance(decision(ejected(24.9)), Nothing)
    move = decision(ejected(25.0))
    assert isinstance(move, Transition)
    assert (move.event, move.target) == (Event.RECOVERED, State.ACTIVE)


def test_it_is_not_active_again_while_nothing_is_heard_of_it() -> None:
    assert isinstance(decision(ejected(60.0, silent_for=11.0)), Nothing)


def test_one_that_is_degraded_for_another_reason_stays_so() -> None:
    assert isinstance(decision(an_instance("w1", state=State.DEGRADED)), Nothing)
