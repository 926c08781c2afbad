"""The live state: the same tests on fakeredis and on the real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerError, NameTaken, Stale
from nxs_tasks.model.decision import Forget, Nothing, Release, Transition
from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.lead import Run
from nxs_tasks.model.record import PlacementRecord, TickRecord, TransitionRecord
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore, Keys, Wire, connect
from nxs_tasks.store.events import Events
from nxs_tasks.store.leases import BeatLease, lead, leads, read_run
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.server import evicts, persistence, try_write
from tests.conftest import FAKE_URL, Server, add_instance, beat, new_store, set_back
from tests.integration.messages import (
    GARBAGE,
    OWN,
    SHARED,
    contents,
    message,
    put,
    task_ids,
)

PROFILE = Profile(
    tasks=frozenset({"shop.pay", "shop.mail"}),
    queues=frozenset({"celery"}),
    tags=("gpu", "ssd"),
    versions=(("celery", "5.7.0"), ("nxs", "0.1.0")),
)


def real_only(store: FleetStore, why: str) -> None:
    if store.url == FAKE_URL:
        pytest.skip(f"fakeredis {why}")


def the(store: FleetStore, instance_id: str = "w1", *, full: bool = False) -> Instance:
    found = store.snapshot(full=full).get(instance_id)
    assert found is not None
    return found


def join(store: FleetStore, instance_id: str = "w1", identity: str = "host/1", **seen: int) -> int:
    return store.join(
        instance_id, identity, PROFILE, **{"seen_epoch": store.epoch(instance_id), **seen}
    )


def with_wire(store: FleetStore, wire: Wire) -> FleetStore:
    return FleetStore(store.client, store.keys, wire, store.shared_queue, store.url)


def transitions(store: FleetStore) -> list[TransitionRecord]:
    return Events(store).pending_transitions()


def change(**values: Any) -> Transition:
    """JOINING → ACTIVE of w1, epoch 1."""
    defaults = {
        "instance": "w1",
        "epoch": 1,
        "source": State.JOINING,
        "target": State.ACTIVE,
        "event": Event.CONFIRMED,
        "reason": "3 consecutive heartbeats",
        "evidence": {"beats": 3, "connections": None},
    }
    return Transition(**{**defaults, **values})


def hold(
    store: FleetStore, epoch: int, *task_ids: str, instance_id: str = "w1", at: float = 100.0
) -> None:
    """What kombu writes when a worker receives messages, one a second from `at` on."""
    prefix, keys = store.wire.prefix, store.keys
    store.client.sadd(keys.holders(), f"{instance_id}:{epoch}")
    for n, task_id in enumerate(task_ids):
        tag = f"tag-{task_id}"
        entry = json.dumps([json.loads(message(task_id)), "", OWN])
        store.client.hset(prefix + keys.inflight(instance_id, epoch), tag, entry)
        store.client.zadd(prefix + keys.inflight_index(instance_id, epoch), {tag: at + n})


def server_hour(store: FleetStore) -> int:
    """The hour of the server, with some seconds of it left."""

    def now() -> int:
        return int(store.client.time()[0])

    assert wait_until(lambda: now() % 3600 < 3590, deadline_s=15)
    return now() // 3600


class TestJoin:
    def test_a_fresh_name_starts_at_epoch_1(self, store: FleetStore) -> None:
        assert store.epoch("w1") == 0
        assert store.join("w1", "host/1", PROFILE, seen_epoch=0) == 1
        assert store.epoch("w1") == 1
        found = the(store)
        assert (found.state, found.epoch, found.identity) == (State.JOINING, 1, "host/1")
        assert found.profile == PROFILE
        assert (found.beat_at, found.beats, found.load) == (None, 0, Load())
        assert 0 <= store.snapshot().taken_at - found.since < 60

    def test_a_fresh_name_is_recorded_as_joined(self, store: FleetStore) -> None:
        join(store)
        [record] = transitions(store)
        assert (record.instance, record.epoch) == ("w1", 1)
        assert (record.source, record.target, record.event) == ("", "JOINING", "joined")
        assert record.at == the(store).since
        assert record.reason
        assert record.evidence == {"identity": "host/1"}

    def test_a_restart_raises_the_epoch_and_records_both(self, store: FleetStore) -> None:
        add_instance(store, "w1")
        before = len(transitions(store))
        assert join(store, identity='host/2 "b"') == 2
        assert (the(store).epoch, the(store).identity) == (2, 'host/2 "b"')
        replaced, joined = transitions(store)[before:]
        assert (replaced.epoch, replaced.source, replaced.target) == (1, "ACTIVE", "GONE")
        assert replaced.event == Event.REPLACED
        assert (joined.epoch, joined.source, joined.target) == (2, "GONE", "JOINING")
        assert joined.event == Event.JOINED
        assert joined.evidence == {"identity": 'host/2 "b"'}

    @pytest.mark.parametrize("end", [State.GONE, State.FAILED])
    def test_a_name_whose_process_has_ended_replaces_nobody(
        self, store: FleetStore, end: State
    ) -> None:
        add_instance(store, "w1", end)
        before = len(transitions(store))
        join(store)
        [joined] = transitions(store)[before:]
        assert (joined.source, joined.event, joined.epoch) == (end, Event.JOINED, 2)

    def test_nothing_of_the_old_process_is_left(self, store: FleetStore) -> None:
        add_instance(store, "w1", ok=3, failed=2)
        store.heartbeat(
            "w1",
            1,
            Load(slots=2),
            longest_gap_s=10,
            succeeded=3,
            failed=2,
            window_days=7,
            last=True,
        )
        assert the(store).stopped
        join(store)
        found = the(store)
        assert (found.beat_at, found.beats, found.load) == (None, 0, Load())
        assert (found.stopped, found.verdict) == (False, "")
        assert (found.succeeded, found.failed) == (3, 2)  # the instance's, not the process's

    def test_who_saw_an_old_epoch_is_refused_and_changes_nothing(self, store: FleetStore) -> None:
        join(store, identity="host/1")
        before, recorded = the(store), transitions(store)
        with pytest.raises(NameTaken, match="'w1'"):
            store.join("w1", "host/2", PROFILE, seen_epoch=0)
        assert the(store) == before
        assert transitions(store) == recorded
        assert store.epoch("w1") == 1

    def test_a_try_whose_answer_was_lost_is_recognised(self, store: FleetStore) -> None:
        assert store.join("w1", "host/1", PROFILE, seen_epoch=0) == 1
        assert store.join("w1", "host/1", PROFILE, seen_epoch=0) == 1
        assert len(transitions(store)) == 1

    def test_a_living_process_gets_the_epoch_that_it_asks_for_after_everything_was_lost(
        self, store: FleetStore
    ) -> None:
        assert join(store, keep_epoch=3) == 3
        assert (the(store).epoch, store.epoch("w1")) == (3, 3)
        assert join(store) == 4

    def test_a_living_process_whose_record_was_lost_gets_the_next_epoch(
        self, store: FleetStore
    ) -> None:
        join(store)
        store.client.delete(store.keys.instance("w1"), store.keys.members())
        assert join(store, keep_epoch=2) == 2
        assert (the(store).state, the(store).epoch) == (State.JOINING, 2)

    @pytest.mark.parametrize("end", [State.GONE, State.FAILED])
    @pytest.mark.parametrize("asked", [1, 2])
    def test_a_living_process_that_was_given_up_gets_the_next_epoch(
        self, store: FleetStore, end: State, asked: int
    ) -> None:
        """Also one that asks for its own: it was a ZOMBIE when it looked, and ended since."""
        add_instance(store, "w1", end)
        before = len(transitions(store))
        assert join(store, keep_epoch=asked) == 2
        assert (the(store).state, the(store).epoch, store.epoch("w1")) == (State.JOINING, 2, 2)
        [joined] = transitions(store)[before:]
        assert (joined.source, joined.event, joined.epoch) == (end, Event.JOINED, 2)

    def test_a_zombie_that_wakes_keeps_its_epoch(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.ZOMBIE)
        before = len(transitions(store))
        assert join(store, keep_epoch=1) == 1
        assert (the(store).state, the(store).epoch) == (State.JOINING, 1)
        [joined] = transitions(store)[before:]
        assert (joined.source, joined.target, joined.epoch) == ("ZOMBIE", "JOINING", 1)

    @pytest.mark.parametrize("asked", [1, 2])
    def test_who_was_replaced_meanwhile_does_not_share_the_epoch_of_the_new_one(
        self, store: FleetStore, asked: int
    ) -> None:
        """Two processes with one epoch would name their deliveries alike."""
        join(store, identity="host/1")
        join(store, identity="host/2")
        before, recorded = the(store), transitions(store)
        with pytest.raises(NameTaken, match="'w1'"):
            join(store, identity="host/1", keep_epoch=asked)
        assert (the(store), transitions(store)) == (before, recorded)
        store.client.delete(store.keys.instance("w1"))
        with pytest.raises(NameTaken, match="'w1'"):
            join(store, identity="host/1", keep_epoch=asked)

    def test_a_return_whose_answer_was_lost_is_made_again(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.GONE)
        assert join(store, keep_epoch=2) == join(store, keep_epoch=2) == 2

    def test_every_process_may_hold_messages_from_then_on(self, store: FleetStore) -> None:
        join(store, "w1")
        join(store, "w1")
        join(store, "a:b@host")
        holders = [(h.instance, h.epoch, h.held) for h in store.holders()]
        assert holders == [("a:b@host", 1, 0), ("w1", 1, 0), ("w1", 2, 0)]

    def test_names_and_fleets_do_not_mix(self, store: FleetStore) -> None:
        other = FleetStore(store.client, Keys("other"), Wire(), SHARED, store.url)
        add_instance(store, "w1")
        join(store)
        assert (join(store, "w2"), join(other)) == (1, 1)
        assert [(i.id, i.epoch) for i in store.snapshot().instances] == [("w1", 2), ("w2", 1)]
        assert [(i.id, i.epoch) for i in other.snapshot().instances] == [("w1", 1)]


class TestHeartbeat:
    def test_consecutive_beats_are_counted(self, store: FleetStore) -> None:
        join(store)
        assert [beat(store, "w1", 1) for _ in range(3)] == [(State.JOINING, n) for n in (1, 2, 3)]
        assert the(store).beats == 3

    def test_it_tells_the_state_as_it_is_now(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.DEGRADED)
        assert beat(store, "w1", 1)[0] is State.DEGRADED

    @pytest.mark.parametrize(("age", "beats"), [(5.0, 4), (10.5, 1)])
    def test_a_gap_begins_the_count_anew(self, store: FleetStore, age: float, beats: int) -> None:
        join(store)
        for _ in range(3):
            beat(store, "w1", 1)
        set_back(store, "w1", "beat_at", age)
        assert beat(store, "w1", 1) == (State.JOINING, beats)

    def test_load_is_kept_and_unknown_stays_unknown(self, store: FleetStore) -> None:
        join(store)
        load = Load(slots=4, running=0, load_avg=0.5, latency_ms=1.25, consuming=False)
        beat(store, "w1", 1, slots=4, running=0, load_avg=0.5, latency_ms=1.25, consuming=False)
        assert the(store).load == load
        assert the(store).load.memory_used is None
        assert 0 <= store.snapshot().taken_at - (the(store).beat_at or 0) < 60

    def test_outcomes_are_the_growth_of_totals(self, store: FleetStore) -> None:
        join(store)
        for ok, failed in [(3, 1), (5, 1), (5, 4)]:
            beat(store, "w1", 1, ok=ok, failed=failed)
        assert (the(store).succeeded, the(store).failed) == (5, 4)

    def test_a_heartbeat_that_is_sent_again_counts_nothing_twice(self, store: FleetStore) -> None:
        join(store)
        for _ in range(2):
            beat(store, "w1", 1, ok=3, failed=1)
        assert (the(store).succeeded, the(store).failed) == (3, 1)

    def test_a_new_process_starts_from_zero_and_adds_to_the_instance(
        self, store: FleetStore
    ) -> None:
        join(store)
        beat(store, "w1", 1, ok=5, failed=1)
        join(store)
        beat(store, "w1", 2, ok=2, failed=0)
        assert (the(store).succeeded, the(store).failed) == (7, 1)

    def test_a_process_that_announces_itself_again_counts_nothing_twice(
        self, store: FleetStore
    ) -> None:
        add_instance(store, "w1", State.GONE, ok=10, failed=1)
        assert join(store, keep_epoch=2) == 2
        beat(store, "w1", 2, ok=10, failed=1)
        assert (the(store).succeeded, the(store).failed) == (10, 1)
        store.client.hset(store.keys.instance("w1"), "state", State.ZOMBIE)
        assert join(store, keep_epoch=2) == 2
        beat(store, "w1", 2, ok=12, failed=1)
        assert (the(store).succeeded, the(store).failed) == (12, 1)

    def test_outcomes_lie_in_buckets_of_an_hour(self, store: FleetStore) -> None:
        join(store)
        hour = server_hour(store)
        beat(store, "w1", 1, ok=3)
        beat(store, "w1", 1, ok=4, failed=2)
        found = store.client.hgetall(store.keys.outcomes("w1"))
        counted = {"epoch": "1", "ok": "4", "failed": "2"}
        assert found == {f"{hour}:ok": "4", f"{hour}:failed": "2", **counted}

    def test_what_left_the_window_of_days_is_dropped(self, store: FleetStore) -> None:
        join(store)
        hour = server_hour(store)
        beat(store, "w1", 1, ok=1)
        outcomes = store.keys.outcomes("w1")
        inside, outside = hour - 7 * 24 + 1, hour - 7 * 24
        store.client.hset(outcomes, mapping={f"{inside}:ok": 10, f"{inside}:failed": 20})
        store.client.hset(outcomes, mapping={f"{outside}:ok": 100, f"{outside}:failed": 200})
        # As it is after the first heartbeat of an hour.
        store.client.hset(store.keys.instance("w1"), "hour", hour - 1)
        beat(store, "w1", 1, ok=2, failed=1)
        assert (the(store).succeeded, the(store).failed) == (12, 21)
        assert set(store.client.hkeys(outcomes)) == {
            f"{hour}:ok",
            f"{hour}:failed",
            f"{inside}:ok",
            f"{inside}:failed",
            *("epoch", "ok", "failed"),  # the totals counted so far
        }

    def test_an_old_epoch_is_refused_and_writes_nothing(self, store: FleetStore) -> None:
        join(store)
        join(store)
        beat(store, "w1", 2)
        before = the(store)
        with pytest.raises(Stale, match="w1 is now at epoch 2, not 1"):
            beat(store, "w1", 1, ok=9, slots=8)
        assert the(store) == before

    def test_a_lost_record_is_told_and_not_made_anew(self, store: FleetStore) -> None:
        join(store)
        store.client.delete(store.keys.instance("w1"))
        with pytest.raises(Stale, match="w1 is now at epoch none, not 1"):
            beat(store, "w1", 1, ok=9)
        keys = store.keys
        assert not store.client.exists(keys.instance("w1"), keys.outcomes("w1"))

    def test_the_last_one_says_that_the_process_has_stopped(self, store: FleetStore) -> None:
        join(store)
        beat(store, "w1", 1)
        assert not the(store).stopped
        store.heartbeat(
            "w1", 1, Load(), longest_gap_s=10, succeeded=0, failed=0, window_days=7, last=True
        )
        assert the(store).stopped


class TestSnapshot:
    def test_of_no_fleet(self, store: FleetStore) -> None:
        found = store.snapshot()
        assert (found.instances, found.shared_queue, found.shared_depth) == ((), SHARED, 0)
        assert abs(found.taken_at - float(store.client.time()[0])) < 60
        assert found.server_started_at is None

    def test_instances_are_sorted(self, store: FleetStore) -> None:
        names = [f"w{n}@host" for n in (3, 10, 1, 2)]
        for name in names:
            join(store, name)
        assert [i.id for i in store.snapshot().instances] == sorted(names)

    def test_every_field(self, store: FleetStore) -> None:
        epoch = add_instance(store, "w1", slots=4, running=1, ok=7, failed=2)
        hold(store, epoch, "a", "b")
        put(store, OWN, message("c"))
        store.note(
            Nothing(instance="w1", epoch=epoch, source=State.ACTIVE, reason="healthy heartbeats")
        )
        found = the(store)
        assert found == Instance(
            id="w1",
            state=State.ACTIVE,
            epoch=1,
            since=found.since,
            beat_at=found.beat_at,
            beats=1,
            load=Load(slots=4, running=1, consuming=True),
            profile=Profile(tasks=frozenset({"shop.pay"}), queues=frozenset({SHARED})),
            succeeded=7,
            failed=2,
            inflight=2,
            queued=1,
            connections=None,
            stopped=False,
            identity="host/1",
            verdict="healthy heartbeats",
            well=1,
        )
        assert found.beat_at is not None
        assert found.beat_at <= found.since < found.beat_at + 60

    def test_depths_are_sums_over_the_priorities(self, store: FleetStore) -> None:
        join(store)
        for count, priority in enumerate(store.wire.steps, start=1):
            put(store, OWN, *["x"] * count, priority=priority)
            put(store, SHARED, *["x"] * count * 2, priority=priority)
        assert the(store).queued == 1 + 2 + 3 + 4
        assert store.snapshot().shared_depth == 2 * (1 + 2 + 3 + 4)

    def test_priorities_as_the_app_has_set_them(self, store: FleetStore) -> None:
        odd = with_wire(store, Wire(sep=":", steps=(0, 5)))
        join(odd)
        odd.client.lpush(f"{OWN}:5", "x", "x")
        odd.client.lpush("celery", "x")
        odd.client.lpush("celery\x06\x163", "not this fleet's")
        assert the(odd).queued == 2
        assert odd.snapshot().shared_depth == 1

    def test_only_what_the_current_process_holds_is_in_flight(self, store: FleetStore) -> None:
        join(store)
        hold(store, 1, "a")
        join(store)
        hold(store, 2, "b", "c")
        assert the(store).inflight == 2

    def test_a_key_prefix_is_of_kombu_s_keys_alone(self, store: FleetStore) -> None:
        prefixed = with_wire(store, Wire(prefix="shop:"))
        join(store)
        for depth, view in [(1, store), (3, prefixed)]:
            put(view, OWN, *["x"] * depth, priority=3)
            put(view, SHARED, *["x"] * depth * 2)
            hold(view, 1, *map(str, range(depth * 3)))
        assert store.client.llen(f"shop:{OWN}\x06\x163") == 3
        for depth, view in [(1, store), (3, prefixed)]:
            assert (the(view).queued, the(view).inflight) == (depth, depth * 3)
            assert view.snapshot().shared_depth == depth * 2

    def test_a_profile_is_read_once(self, store: FleetStore) -> None:
        join(store)
        assert the(store).profile == PROFILE
        [digest] = store.client.hkeys(store.keys.profiles())
        store.client.hset(store.keys.profiles(), digest, "never read again")
        assert the(store).profile == PROFILE
        store.client.delete(store.keys.profiles())
        newcomer = with_wire(store, store.wire)
        assert (the(store).profile, the(newcomer).profile) == (PROFILE, None)

    def test_a_new_profile_is_read_when_it_appears(self, store: FleetStore) -> None:
        join(store)
        assert the(store).profile == PROFILE
        new = replace(PROFILE, tasks=frozenset({"shop.refund"}))
        store.join("w1", "host/2", new, seen_epoch=1)
        store.join("w2", "host/3", PROFILE, seen_epoch=0)
        assert (the(store).profile, the(store, "w2").profile) == (new, PROFILE)

    def test_a_record_without_load(self, store: FleetStore) -> None:
        join(store)
        found = the(store)
        assert (found.load, found.beat_at, found.beats) == (Load(), None, 0)
        assert (found.inflight, found.queued) == (0, 0)

    def test_a_load_of_a_newer_nxs(self, store: FleetStore) -> None:
        join(store)
        store.client.hset(store.keys.instance("w1"), "load", '{"slots": 2, "gpu_used": 0.5}')
        assert the(store).load == Load(slots=2)

    def test_each_look_shows_the_last_heartbeat(self, store: FleetStore) -> None:
        join(store, "w1")
        join(store, "w2")
        for running in (1, 2, 2, 1):
            beat(store, "w1", 1, running=running)
            assert the(store).load == Load(running=running)
        assert the(store, "w2").load == Load()
        join(store, "w1")
        assert the(store).load == Load()

    def test_a_member_without_a_record_is_none(self, store: FleetStore) -> None:
        join(store)
        store.client.sadd(store.keys.members(), "ghost")
        assert [i.id for i in store.snapshot().instances] == ["w1"]

    @pytest.mark.parametrize(
        ("field", "text"), [("load", "{"), ("state", "SLEEPING"), ("verdict", "\x1f")]
    )
    def test_a_bad_record_does_not_hide_the_others(
        self, store: FleetStore, field: str, text: str
    ) -> None:
        join(store)
        join(store, "bad")
        store.client.hset(store.keys.instance("bad"), field, text)
        assert "w1" in [i.id for i in store.snapshot().instances]

    def test_full_counts_the_connections_of_the_current_process(self, store: FleetStore) -> None:
        real_only(store, "shows no names in CLIENT LIST")
        join(store, "w1")
        join(store, "w1")
        join(store, "w2")
        names = ["nxs:default:w1:2", "nxs:default:w1:2", "nxs:default:w1:1", "nxs:other:w2:1"]
        clients = [connect(store.url, client_name=name) for name in names]
        for client in clients:
            client.ping()
        assert (the(store, full=True).connections, the(store, "w2", full=True).connections) == (
            2,
            0,
        )
        assert the(store).connections is None
        for client in clients:
            client.close()
        assert wait_until(lambda: the(store, full=True).connections == 0, deadline_s=5)

    def test_full_tells_since_when_the_server_runs(self, store: FleetStore) -> None:
        real_only(store, "has no INFO")
        found = store.snapshot(full=True)
        assert found.server_started_at is not None
        uptime = store.check_server()["uptime_in_seconds"]
        assert 0 <= found.taken_at - found.server_started_at <= uptime


class TestTransition:
    def test_it_moves_the_instance_and_keeps_the_reason(self, store: FleetStore) -> None:
        join(store)
        set_back(store, "w1", "since", 100)
        before = the(store)
        store.transition(change())
        found = the(store)
        assert (found.state, found.epoch) == (State.ACTIVE, 1)
        assert found.verdict == "3 consecutive heartbeats"
        assert found.since > before.since + 99

    def test_it_is_recorded_under_the_id_that_it_returns(self, store: FleetStore) -> None:
        join(store)
        stream_id = store.transition(change())
        record = transitions(store)[-1]
        assert record == TransitionRecord(
            event_id=f"transition:{stream_id}",
            at=the(store).since,
            instance="w1",
            epoch=1,
            source="JOINING",
            target="ACTIVE",
            event="confirmed",
            reason="3 consecutive heartbeats",
            evidence={"beats": 3, "connections": None},
        )

    @pytest.mark.parametrize(
        ("decision", "found"),
        [
            pytest.param(change(source=State.ACTIVE), "w1 is now JOINING:1", id="state"),
            pytest.param(change(epoch=2), "w1 is now JOINING:1", id="epoch"),
            pytest.param(change(instance="w9"), "w9 is now none:0", id="no record"),
        ],
    )
    def test_a_changed_instance_stays_as_it_is(
        self, store: FleetStore, decision: Transition, found: str
    ) -> None:
        join(store)
        before, recorded = store.snapshot().instances, transitions(store)
        with pytest.raises(Stale, match=found):
            store.transition(decision)
        assert store.snapshot().instances == before
        assert transitions(store) == recorded
        assert not store.client.exists(store.keys.instance("w9"))

    def test_of_two_with_the_same_precondition_one_happens(self, store: FleetStore) -> None:
        join(store)
        store.transition(change())
        with pytest.raises(Stale):
            store.transition(change(target=State.LEAVING))
        assert the(store).state is State.ACTIVE


class TestNote:
    def test_it_keeps_the_reason_alone(self, store: FleetStore) -> None:
        join(store)
        before, recorded = the(store), transitions(store)
        store.note(Nothing(instance="w1", epoch=1, source=State.JOINING, reason="1 of 3"))
        assert the(store) == replace(before, verdict="1 of 3")
        assert transitions(store) == recorded

    @pytest.mark.parametrize(("epoch", "source"), [(2, State.JOINING), (1, State.ACTIVE)])
    def test_of_a_changed_instance_is_refused(
        self, store: FleetStore, epoch: int, source: State
    ) -> None:
        join(store)
        with pytest.raises(Stale, match="w1"):
            store.note(Nothing(instance="w1", epoch=epoch, source=source, reason="old news"))
        assert the(store).verdict == ""


class TestForget:
    forget = Forget(instance="w1", epoch=1, source=State.GONE, reason="GONE for long")

    def test_the_record_goes_and_the_epoch_stays(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.GONE)
        store.forget(self.forget, 60)
        assert store.snapshot().instances == ()
        assert not store.client.exists(store.keys.instance("w1"), store.keys.members())
        assert store.epoch("w1") == 1
        assert join(store) == 2

    def test_outcomes_stay_for_the_rest_of_their_window(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.GONE, ok=4)
        store.forget(self.forget, 60)
        assert 0 < store.client.ttl(store.keys.outcomes("w1")) <= 60
        join(store)
        beat(store, "w1", 2, ok=1)
        assert the(store).succeeded == 5

    def test_outcomes_of_one_that_is_back_do_not_expire(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.GONE, ok=4)
        store.forget(self.forget, 60)
        join(store)
        beat(store, "w1", 2, ok=1)
        assert store.client.ttl(store.keys.outcomes("w1")) == -1

    @pytest.mark.parametrize("changed", [{"epoch": 2}, {"source": State.FAILED}])
    def test_of_a_changed_instance_is_refused(
        self, store: FleetStore, changed: dict[str, Any]
    ) -> None:
        add_instance(store, "w1", State.GONE, ok=4)
        before = the(store)
        with pytest.raises(Stale, match="w1"):
            store.forget(replace(self.forget, **changed), 60)
        assert the(store) == before
        assert store.client.ttl(store.keys.outcomes("w1")) == -1


class TestRelease:
    release = Release(
        instance="w1", epoch=1, source=State.GONE, target=SHARED, reason="3 task(s) wait"
    )

    @pytest.fixture(autouse=True)
    def _gone(self, store: FleetStore) -> None:
        add_instance(store, "w1", State.GONE)

    def test_they_go_to_the_queue_that_the_decision_names(self, store: FleetStore) -> None:
        put(store, OWN, message("a"))
        assert store.release(replace(self.release, target="shop")) == 1
        assert store.client.llen("shop") == 1
        assert store.client.llen(SHARED) == 0

    def test_they_come_before_what_waits_and_in_their_order(self, store: FleetStore) -> None:
        put(store, SHARED, message("x"), message("y"))
        put(store, OWN, message("a"), message("b"), message("c"))
        assert store.release(self.release) == 3
        assert task_ids(store, SHARED) == ["a", "b", "c", "x", "y"]
        assert contents(store, OWN) == []

    def test_they_keep_their_priority(self, store: FleetStore) -> None:
        for priority in store.wire.steps:
            put(store, SHARED, message(f"x{priority}"), priority=priority)
            put(store, OWN, message(f"a{priority}"), message(f"b{priority}"), priority=priority)
        assert store.release(self.release) == 8
        assert task_ids(store, SHARED) == [
            f"{name}{priority}" for priority in store.wire.steps for name in "abx"
        ]

    def test_with_a_key_prefix(self, store: FleetStore) -> None:
        prefixed = with_wire(store, Wire(prefix="shop:"))
        put(prefixed, OWN, message("a"))
        put(store, OWN, message("not this fleet's"))
        assert prefixed.release(self.release) == 1
        assert task_ids(prefixed, SHARED) == ["a"]
        assert contents(store, SHARED) == []
        assert len(contents(store, OWN)) == 1

    def test_a_message_is_addressed_to_where_it_lies_and_else_the_same(
        self, store: FleetStore
    ) -> None:
        sent = json.loads(message("a", argsrepr="('ä',)", nxs={"to": "w1", "at": 1.5}))
        sent["properties"]["delivery_info"] = {"exchange": "old", "routing_key": OWN, "more": 1}
        put(store, OWN, json.dumps(sent))
        store.release(self.release)
        [moved] = map(json.loads, contents(store, SHARED))
        assert moved["properties"]["delivery_info"] == {
            "exchange": "",
            "routing_key": SHARED,
            "more": 1,
        }
        moved["properties"]["delivery_info"] = sent["properties"]["delivery_info"]
        assert moved == sent

    def test_a_message_without_an_address_gets_one(self, store: FleetStore) -> None:
        put(store, OWN, '{"body": "", "headers": {"id": "a"}, "properties": {}}')
        store.release(self.release)
        [moved] = map(json.loads, contents(store, SHARED))
        assert moved["properties"] == {"delivery_info": {"exchange": "", "routing_key": SHARED}}

    def test_what_is_no_message_stays_and_hides_no_other(self, store: FleetStore) -> None:
        deep = b"[" * 100_000
        put(store, OWN, *GARBAGE, deep, message("a"), *GARBAGE)
        assert store.release(self.release) == 1
        assert task_ids(store, SHARED) == ["a"]
        assert sorted(contents(store, OWN)) == sorted([*GARBAGE, deep, *GARBAGE])

    def test_behind_many_that_stay_it_finds_the_others(self, store: FleetStore) -> None:
        put(store, OWN, *[b"not JSON"] * 450, message("a"))
        put(store, OWN, *[b"not JSON"] * 450)
        assert store.release(self.release) == 1
        assert len(contents(store, OWN)) == 900

    def test_a_task_that_others_do_not_know_goes_to_who_knows_it_or_stays(
        self, store: FleetStore
    ) -> None:
        put(store, OWN, message("a"))
        add_instance(store, "other", tasks=("shop.mail",))
        assert store.release(self.release) == 0
        assert task_ids(store, OWN) == ["a"]
        add_instance(store, "knowing", tasks=("shop.pay",))
        assert store.release(self.release) == 1
        [moved] = map(json.loads, contents(store, store.keys.own_queue("knowing")))
        assert moved["properties"]["delivery_info"]["routing_key"] == "nxs.default/knowing"

    @pytest.mark.parametrize("state", [State.ZOMBIE, State.ACTIVE])
    def test_to_itself_nothing_is_given_back(self, store: FleetStore, state: State) -> None:
        """It may live and have the shortest line, such as one whose consumer was cancelled."""
        add_instance(store, "w1", state)
        add_instance(store, "other", tasks=("shop.mail",))
        put(store, OWN, *[message("a")] * 450)
        release = replace(self.release, epoch=2, source=state)
        assert store.release(release) == 0
        assert task_ids(store, OWN) == ["a"] * 450
        add_instance(store, "busy", running=2)
        put(store, store.keys.own_queue("busy"), *[message("x")] * 999)
        assert store.release(release) == 450

    def test_equal_messages_are_all_moved(self, store: FleetStore) -> None:
        put(store, OWN, *[message("a")] * 3)
        assert store.release(self.release) == 3
        assert task_ids(store, SHARED) == ["a"] * 3

    def test_more_than_one_batch(self, store: FleetStore) -> None:
        names = [f"t{n}" for n in range(450)]
        put(store, SHARED, message("x"))
        put(store, OWN, *map(message, names))
        assert store.release(self.release) == 450
        assert task_ids(store, SHARED) == [*names, "x"]
        assert contents(store, OWN) == []

    @pytest.mark.parametrize("changed", [{"epoch": 2}, {"source": State.LEAVING}])
    def test_of_a_changed_instance_moves_nothing(
        self, store: FleetStore, changed: dict[str, Any]
    ) -> None:
        put(store, OWN, message("a"))
        with pytest.raises(Stale, match="w1 changed meanwhile"):
            store.release(replace(self.release, **changed))
        assert (task_ids(store, OWN), contents(store, SHARED)) == (["a"], [])

    def test_of_a_lost_record_moves_nothing(self, store: FleetStore) -> None:
        put(store, OWN, message("a"))
        store.client.delete(store.keys.instance("w1"))
        with pytest.raises(Stale):
            store.release(self.release)
        assert task_ids(store, OWN) == ["a"]

    def move(self, store: FleetStore, raws: list[str]) -> int:
        """The script with what was read before, as if others came between."""
        keys = [store.keys.instance("w1"), OWN, SHARED]
        pairs = [raw for raw in raws for _ in range(2)]
        return int(store.call("move", keys, [1, State.GONE, *pairs]))

    def test_a_publish_between_read_and_move_stays_for_the_next(self, store: FleetStore) -> None:
        put(store, OWN, message("a"), message("b"))
        read: Any = store.client.lrange(OWN, 0, -1)
        put(store, OWN, message("late"))
        assert self.move(store, read) == 2
        assert (task_ids(store, OWN), task_ids(store, SHARED)) == (["late"], ["a", "b"])

    def test_a_worker_that_takes_one_between_read_and_move_has_it_alone(
        self, store: FleetStore
    ) -> None:
        put(store, OWN, message("a"), message("b"), message("c"))
        read: Any = store.client.lrange(OWN, 0, -1)
        assert store.client.rpop(OWN) == message("a")
        assert self.move(store, read) == 2
        assert (task_ids(store, OWN), task_ids(store, SHARED)) == ([], ["b", "c"])

    def test_publishes_and_takes_at_the_same_time_lose_nothing(self, store: FleetStore) -> None:
        names = [f"t{n}" for n in range(600)]
        taken: list[str] = []

        def publish() -> None:
            for name in names:
                put(store, OWN, message(name))

        def take() -> None:
            while len(taken) < 100:
                raw: Any = store.client.rpop(OWN)
                if raw is not None:
                    taken.append(json.loads(raw)["headers"]["id"])
                elif not publisher.is_alive():
                    return

        publisher, taker = threading.Thread(target=publish), threading.Thread(target=take)
        publisher.start()
        taker.start()
        moved = 0
        while publisher.is_alive() or taker.is_alive() or store.client.llen(OWN):
            moved += store.release(self.release)
        publisher.join()
        taker.join()
        assert sorted(taken + task_ids(store, SHARED)) == sorted(names)
        assert moved == len(names) - len(taken)


class TestQueues:
    def test_depths_by_priority(self, store: FleetStore) -> None:
        put(store, OWN, "x", "x", priority=0)
        put(store, OWN, "x", priority=6)
        assert Queues(store).depths(OWN) == {0: 2, 3: 0, 6: 1, 9: 0}
        assert Queues(store).depths("none") == {0: 0, 3: 0, 6: 0, 9: 0}

    def test_the_oldest_of_all_priorities(self, store: FleetStore) -> None:
        put(store, OWN, message("a", nxs={"at": 200.5}), message("b", nxs={"at": 1.0}))
        put(store, OWN, message("c", nxs={"at": 100.5}), priority=9)
        put(store, OWN, message("d"), priority=3)
        assert Queues(store).oldest_at(OWN) == 100.5

    @pytest.mark.parametrize("raw", [message("a"), message("a", nxs={"at": "noon"}), *GARBAGE])
    def test_the_oldest_is_unknown_where_no_message_tells(
        self, store: FleetStore, raw: str | bytes
    ) -> None:
        assert Queues(store).oldest_at(OWN) is None
        put(store, OWN, raw)
        assert Queues(store).oldest_at(OWN) is None

    @pytest.mark.parametrize("at", [10**400, float("nan")], ids=["too large", "NaN"])
    def test_the_oldest_is_unknown_where_its_time_is_none(
        self, store: FleetStore, at: float
    ) -> None:
        put(store, OWN, message("a", nxs={"at": at}))
        assert Queues(store).oldest_at(OWN) is None

    def test_what_a_process_holds_oldest_first(self, store: FleetStore) -> None:
        hold(store, 2, "b", at=300.0)
        hold(store, 2, "a", "c", at=100.0)
        hold(store, 1, "of another process")
        found = Queues(store).held("w1", 2)
        assert [(h.envelope.task_id, h.since) for h in found] == [
            ("a", 100.0),
            ("c", 101.0),
            ("b", 300.0),
        ]
        assert {(h.instance, h.epoch, h.envelope.task) for h in found} == {("w1", 2, "shop.pay")}

    def test_a_time_of_receipt_that_is_missing_is_unknown(self, store: FleetStore) -> None:
        hold(store, 1, "a")
        store.client.delete(store.keys.inflight_index("w1", 1))
        [found] = Queues(store).held("w1", 1)
        assert (found.envelope.task_id, found.since) == ("a", None)

    def test_what_everybody_holds_over_several_epochs(self, store: FleetStore) -> None:
        hold(store, 1, "a")
        hold(store, 12, "b", "c")
        hold(store, 3, "d", instance_id="w2@host:x")
        other = FleetStore(store.client, Keys("other"), Wire(), SHARED, store.url)
        hold(other, 1, "of another fleet")
        found = [(h.instance, h.epoch, h.envelope.task_id) for h in Queues(store).all_held()]
        assert sorted(found) == [
            ("w1", 1, "a"),
            ("w1", 12, "b"),
            ("w1", 12, "c"),
            ("w2@host:x", 3, "d"),
        ]

    @pytest.mark.parametrize("prefix", ["shop:", "[shop]"])
    def test_what_everybody_holds_under_a_key_prefix(self, store: FleetStore, prefix: str) -> None:
        prefixed = with_wire(store, Wire(prefix=prefix))
        hold(prefixed, 1, "a")
        hold(store, 1, "b")
        assert [h.envelope.task_id for h in Queues(prefixed).all_held()] == ["a"]
        assert [h.envelope.task_id for h in Queues(store).all_held()] == ["b"]

    @pytest.mark.parametrize("raw", [*GARBAGE, b"[1, 2, 3]", b'[{"headers": {}}, "", ""]'])
    def test_a_bad_entry_is_shown_beside_the_others(self, store: FleetStore, raw: bytes) -> None:
        hold(store, 1, "a")
        store.client.hset(store.keys.inflight("w1", 1), "bad", raw)
        bad, good = sorted(Queues(store).held("w1", 1), key=lambda h: h.envelope.task_id)
        assert good.envelope.task_id == "a"
        assert (bad.envelope.task_id, bad.since) == ("", None)
        assert bad.envelope.task.startswith("not a")

    def test_a_key_that_is_no_process_s_does_not_hide_the_others(self, store: FleetStore) -> None:
        store.client.hset(store.keys.inflight_base() + "odd", "tag", "x")
        hold(store, 1, "a")
        store.client.delete(store.keys.holders())
        Queues(store).register_holders()
        assert [h.envelope.task_id for h in Queues(store).all_held()] == ["a"]

    @pytest.mark.parametrize("prefix", ["", "shop:", "[shop]"])
    def test_who_holds_without_having_announced_itself_is_found(
        self, store: FleetStore, prefix: str
    ) -> None:
        """Such as a process of an NXS that registered nobody."""
        prefixed = with_wire(store, Wire(prefix=prefix))
        hold(prefixed, 3, "a", instance_id="w2@host:x")
        hold(prefixed, 12, "b", "c")
        store.client.delete(store.keys.holders())
        Queues(with_wire(store, Wire(prefix="other:"))).register_holders()
        assert store.holders() == ()
        Queues(prefixed).register_holders()
        found = [(h.instance, h.epoch, h.held) for h in prefixed.holders()]
        assert found == [("w1", 12, 2), ("w2@host:x", 3, 1)]

    def test_a_waiting_task_and_how_many_are_before_it(self, store: FleetStore) -> None:
        put(store, OWN, message("a"), message("b"), message("c", nxs={"to": "w1"}, redelivered=1))
        put(store, OWN, message("d"), message("e"), priority=6)
        queues = Queues(store)
        found = {name: queues.find_waiting(OWN, name) for name in "abcde"}
        places = {n: (w.queue, w.priority, w.ahead) for n, w in found.items() if w is not None}
        assert places == {
            "a": (OWN, 0, 0),
            "b": (OWN, 0, 1),
            "c": (OWN, 0, 2),
            "d": (OWN, 6, 0),
            "e": (OWN, 6, 1),
        }
        assert found["c"] is not None
        envelope = found["c"].envelope
        assert (envelope.task_id, envelope.task, envelope.placed, envelope.redelivered) == (
            "c",
            "shop.pay",
            {"to": "w1"},
            True,
        )

    def test_a_task_that_does_not_wait(self, store: FleetStore) -> None:
        put(store, OWN, message("other", argsrepr="('task-1',)"))
        assert Queues(store).find_waiting(OWN, "task-1") is None
        assert Queues(store).find_waiting("none", "task-1") is None

    def test_a_waiting_task_beside_what_is_no_message(self, store: FleetStore) -> None:
        put(store, OWN, *GARBAGE, b"wanted \xff", message("wanted"))
        found = Queues(store).find_waiting(OWN, "wanted")
        assert found is not None
        assert found.ahead == len(GARBAGE) + 1

    @pytest.mark.parametrize("ahead", [999, 1000, 1001, 2345])
    def test_a_task_deep_in_a_long_queue(self, store: FleetStore, ahead: int) -> None:
        store.client.lpush(OWN, *["x"] * ahead)
        put(store, OWN, message("wanted"))
        store.client.lpush(OWN, *["y"] * 100)
        found = Queues(store).find_waiting(OWN, "wanted")
        assert found is not None
        assert found.ahead == ahead

    @pytest.mark.parametrize("depth", [1000, 1001])
    def test_a_task_that_is_not_in_a_long_queue(self, store: FleetStore, depth: int) -> None:
        store.client.lpush(OWN, *["x"] * depth)
        assert Queues(store).find_waiting(OWN, "wanted") is None


class TestEvents:
    direct = PlacementRecord(
        event_id="",
        at=1700000000.25,
        task_id="t-1",
        task="shop.pay",
        instance="w1",
        score=0.1 + 0.2,
        reason="highest score",
        candidates=({"instance": "w1", "score": 0.3, "why_not": ""},),
    )
    shared = replace(direct, task_id="t-2", instance=None, score=None, candidates=())
    tick = TickRecord(
        event_id="",
        at=1700000000.125,
        job="lifecycle",
        lateness_s=0.1 + 0.2,
        took_s=0.5,
        node="c@h",
    )

    def add(self, store: FleetStore, *placements: PlacementRecord) -> None:
        Events(store).add_placements(
            (
                p.task_id,
                p.task,
                {
                    "at": repr(p.at),
                    "instance": p.instance or "",
                    "score": "" if p.score is None else repr(p.score),
                    "reason": p.reason,
                    "candidates": json.dumps(p.candidates),
                },
            )
            for p in placements
        )

    def test_placements_come_back_as_they_were(self, store: FleetStore) -> None:
        self.add(store, self.direct, self.shared)
        found = Events(store).read().records
        assert [replace(r, event_id="") for r in found] == [self.direct, self.shared]
        assert len({r.event_id for r in found}) == 2
        assert all(r.event_id.startswith("placement:") for r in found)

    def test_ticks_come_back_as_they_were(self, store: FleetStore) -> None:
        Events(store).add_tick(self.tick)
        [found] = Events(store).read().records
        assert replace(found, event_id="") == self.tick
        assert found.event_id.startswith("tick:")

    def test_transitions_come_back_as_they_were(self, store: FleetStore) -> None:
        join(store)
        assert list(Events(store).read().records) == transitions(store)

    def test_the_last_run_of_each_job_outlives_the_stream(self, store: FleetStore) -> None:
        events = Events(store)
        assert events.last_ticks() == {}
        later = replace(self.tick, at=1700000005.5)
        other = replace(self.tick, job="record")
        for tick in (self.tick, other, later):
            events.add_tick(tick)
        events.done(events.read())
        found = {job: replace(tick, event_id="") for job, tick in events.last_ticks().items()}
        assert found == {"lifecycle": later, "record": other}

    def test_what_was_read_is_read_again_until_it_is_done(self, store: FleetStore) -> None:
        join(store)
        self.add(store, self.direct)
        events = Events(store)
        events.add_tick(self.tick)
        first = events.read()
        assert len(first.records) == 3
        assert events.read() == first
        self.add(store, self.shared)
        events.done(first)
        assert [replace(r, event_id="") for r in events.read().records] == [self.shared]
        events.done(events.read())
        assert events.read().records == ()
        events.done(events.read())

    def test_the_oldest_come_first(self, store: FleetStore) -> None:
        events = Events(store)
        for n in range(5):
            events.add_tick(replace(self.tick, at=float(n)))
        read: list[float] = []
        while records := events.read(count=2).records:
            assert len(records) <= 2
            read += [r.at for r in records]
            events.done(events.read(count=2))
        assert read == [0.0, 1.0, 2.0, 3.0, 4.0]

    def test_pending_transitions_of_one_instance(self, store: FleetStore) -> None:
        join(store, "w1")
        join(store, "w2")
        store.transition(change())
        events = Events(store)
        assert [t.instance for t in events.pending_transitions()] == ["w1", "w2", "w1"]
        assert [t.target for t in events.pending_transitions("w1")] == ["JOINING", "ACTIVE"]
        assert events.pending_transitions("w9") == []

    def test_an_entry_that_is_no_event_does_not_hide_the_others(self, store: FleetStore) -> None:
        store.client.xadd(store.keys.transitions(), {"made": "by hand"})
        Events(store).add_tick(self.tick)
        assert len(Events(store).read().records) == 1


def standing(lease: BeatLease) -> tuple[bool, int]:
    found = lease.acquire()
    return found.leads, found.term


class TestBeatLease:
    def lease(self, store: FleetStore, holder: str, ttl_s: float = 60.0) -> BeatLease:
        return BeatLease(store, "shop", holder, ttl_s)

    def test_one_leads(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        assert a.holder() is None
        assert standing(a) == (True, 1)
        assert standing(b) == (False, 1)
        assert (a.holder(), b.holder()) == ("a", "a")

    def test_a_renewal_keeps_the_term_and_prolongs(self, store: FleetStore) -> None:
        a = self.lease(store, "a")
        a.acquire()
        store.client.pexpire(store.keys.beat_lease("shop"), 30_000)
        assert standing(a) == (True, 1)
        assert 50_000 < store.client.pttl(store.keys.beat_lease("shop")) <= 60_000

    def test_who_stands_by_prolongs_nothing(self, store: FleetStore) -> None:
        self.lease(store, "a").acquire()
        store.client.pexpire(store.keys.beat_lease("shop"), 30_000)
        self.lease(store, "b").acquire()
        assert store.client.pttl(store.keys.beat_lease("shop")) <= 30_000

    def test_after_it_ran_out_there_is_a_new_term(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        store.client.pexpire(store.keys.beat_lease("shop"), 1)
        assert wait_until(lambda: a.holder() is None, deadline_s=5, poll_s=0.002)
        assert standing(b) == (True, 2)
        assert standing(a) == (False, 2)

    def test_it_runs_out_by_itself(self, store: FleetStore) -> None:
        a = self.lease(store, "a", ttl_s=0.02)
        assert standing(a) == (True, 1)
        assert wait_until(lambda: a.holder() is None, deadline_s=5, poll_s=0.002)
        assert standing(a) == (True, 2)

    def test_who_leads_resigns(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        a.resign()
        assert a.holder() is None
        assert standing(b) == (True, 2)

    def test_who_does_not_lead_cannot_resign(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        b.resign()
        assert a.holder() == "a"
        assert standing(a) == (True, 1)

    def test_runs_are_kept_beside_it(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        assert a.runs() == {}
        a.acquire()
        daily, hourly = Run(at=1700086400.25, count=2), Run(at=1.0, count=7, due=9.5)
        assert set(a.adopt(1, {"daily": daily, "hourly": hourly})) == {"daily", "hourly"}
        assert b.runs() == {"daily": daily, "hourly": hourly}

    def test_who_takes_a_schedule_on_keeps_its_runs_and_forgets_the_others(
        self, store: FleetStore
    ) -> None:
        a = self.lease(store, "a")
        a.acquire()
        a.adopt(1, {"daily": Run(at=1.0, count=2), "removed": Run(at=1.0, count=2)})
        found = a.adopt(1, {"daily": Run(at=9.0, count=0), "new": Run(at=9.0, count=0)})
        assert {name: read_run(name, text) for name, text in found.items()} == a.runs()
        assert a.runs() == {"daily": Run(at=1.0, count=2), "new": Run(at=9.0, count=0)}

    def test_who_does_not_lead_takes_nothing_on(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        assert b.adopt(1, {"daily": Run(at=1.0, count=2)}) == {}
        assert a.adopt(2, {"daily": Run(at=1.0, count=2)}) == {}
        assert a.runs() == {}

    def test_a_run_that_cannot_be_read_is_passed_over(
        self, store: FleetStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        a = self.lease(store, "a")
        texts: dict[Any, Any] = {"a": "[1, 2]", "b": "no JSON", "c": '{"at": 1}', "d": "7"}
        store.client.hset(store.keys.beat_runs("shop"), mapping=texts)
        assert a.runs() == {}
        assert [f"the last run of {name} cannot be read" in caplog.text for name in texts] == [
            True
        ] * 4

    def test_everybody_can_see_who_leads_and_who_stands_by(self, store: FleetStore) -> None:
        assert leads(store) == []
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        b.acquire()
        [found] = leads(store)
        assert (found.app, found.leader, found.term) == ("shop", "a", 1)
        assert [s.beat for s in found.standbys] == ["b"]
        assert 0 <= store.now() - (found.since or 0) < 60
        assert found.renewed_at == found.since
        a.acquire()
        again = lead(store, "shop")
        assert again.since == found.since
        assert (again.renewed_at or 0) > (found.renewed_at or 0)

    def test_everybody_can_see_why_nobody_leads(self, store: FleetStore) -> None:
        a, b = self.lease(store, "a"), self.lease(store, "b")
        a.acquire()
        a.resign()
        found = lead(store, "shop")
        assert (found.leader, found.last, found.term) == ("", "a", 1)
        assert found.resigned_at is not None
        assert [s.beat for s in found.standbys] == ["a"]
        b.acquire()
        store.client.delete(store.keys.beat_lease("shop"))  # it ran out
        found = lead(store, "shop")
        assert (found.leader, found.last, found.term, found.resigned_at) == ("", "b", 2, None)

    def test_a_beat_that_ends_or_falls_silent_stands_by_no_more(self, store: FleetStore) -> None:
        a, b, c = (self.lease(store, name) for name in "abc")
        for one in (a, b, c):
            one.acquire()
        c.resign(ends=True)
        assert [s.beat for s in lead(store, "shop").standbys] == ["b"]
        store.client.zadd(store.keys.beats("shop"), {"b": store.now() - 182})
        a.acquire()
        assert lead(store, "shop").standbys == ()


class TestScripts:
    @pytest.mark.parametrize(
        "use",
        [
            lambda store: store.snapshot(),
            lambda store: beat(store, "w1", 1),
            lambda store: store.transition(change()),
        ],
        ids=["snapshot", "heartbeat", "transition"],
    )
    def test_a_server_that_lost_its_scripts_gets_them_again(
        self, store: FleetStore, use: Callable[[FleetStore], object]
    ) -> None:
        join(store)
        store.client.script_flush()
        assert use(store)


def test_persistence_is_told(store: FleetStore) -> None:
    real_only(store, "has no INFO")
    assert persistence(store) is True
    store.client.config_set("appendonly", "no")
    try:
        assert persistence(store) is False
    finally:
        store.client.config_set("appendonly", "yes")


def test_a_server_that_evicts_or_takes_no_write_is_told(own_server: Server) -> None:
    store = new_store(own_server.url)
    try_write(store)
    assert wait_until(lambda: store.client.exists(store.keys.trial()) == 0, 10.0)
    assert evicts(store) == ""
    store.client.config_set("maxmemory-policy", "allkeys-lru")
    assert evicts(store) == "", "there is no limit"
    store.client.config_set("maxmemory", "1gb")
    assert evicts(store) == "allkeys-lru"
    store.client.config_set("maxmemory-policy", "noeviction")
    store.client.config_set("maxmemory", "1")
    assert evicts(store) == ""
    with pytest.raises(BrokerError, match="maxmemory"):
        try_write(store)


def test_two_processes_see_the_same_fleet(url: str) -> None:
    ours, theirs = new_store(url), new_store(url)
    add_instance(ours, "w1", slots=3)
    assert theirs.snapshot().instances == ours.snapshot().instances


class TestTidy:
    def test_only_profiles_that_nobody_has_are_removed(self, store: FleetStore) -> None:
        add_instance(store, "w1", tasks=("shop.old",))
        add_instance(store, "w2", tasks=("shop.pay",))
        assert store.tidy() == 0
        add_instance(store, "w1", tasks=("shop.pay",))
        assert store.tidy() == 1
        known = {i.id: i.profile.tasks for i in store.snapshot().instances if i.profile}
        assert known == {"w1": {"shop.pay"}, "w2": {"shop.pay"}}
        assert store.client.hlen(store.keys.profiles()) == 1
