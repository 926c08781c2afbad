"""The heartbeat of one instance, on a real server; the consumer that it looks at is the test's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nxs_tasks.clock import SYSTEM, Clock, FakeClock, wait_until
from nxs_tasks.errors import BrokerUnreachable, Stale
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.record import TransitionRecord
from nxs_tasks.model.state import Event, State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore, connect
from nxs_tasks.store.events import Events
from nxs_tasks.transport.tenure import Claimed, Ending, Tenure
from nxs_tasks.worker.consumption import Consumption
from nxs_tasks.worker.heartbeat import Heartbeat, Identity
from nxs_tasks.worker.tally import Tally
from tests.conftest import Server, new_store, set_back

PROFILE = Profile(tasks=frozenset({"shop.pay"}), queues=frozenset({"celery"}))
SEEN = Consumption(slots=4, running=2, early=0, waiting=1, consuming=True, asked_s=0.5, types={})
UNKNOWN = Consumption(
    slots=None, running=None, early=None, waiting=None, consuming=None, asked_s=None, types={}
)


class Worker:
    """An instance that has its name, and its heartbeat, which the test makes beat."""

    def __init__(
        self,
        url: str,
        clock: Clock = SYSTEM,
        store_class: type[FleetStore] = FleetStore,
        **settings: Any,
    ) -> None:
        self.url = url
        self.store = new_store(url)
        epoch = self.store.join("w1", "host/1", PROFILE, seen_epoch=self.store.epoch("w1"))
        self.tenure = Tenure(self.store, "w1", epoch)
        self.tally = Tally()
        self.seen = SEEN
        self.looked_at: list[float] = []
        #: What the heartbeat has told: the epochs that it got, how often its name was another's.
        self.new_epochs: list[int] = []
        self.replaced = 0
        self.upkeeps = 0
        chosen = Settings(**settings)
        client = connect(url, timeout_s=chosen.broker_timeout)
        self.heartbeat_store = store_class(client, self.store.keys, self.store.wire, "celery", url)
        self.heartbeat = Heartbeat(
            self.heartbeat_store,
            Identity(process="host/1", profile=PROFILE),
            self.tenure,
            self.tally,
            chosen,
            clock,
            look=self.look,
            upkeep=self.keep_up,
            on_new_epoch=self.new_epochs.append,
            on_replaced=self.be_replaced,
        )

    def look(self, now: float) -> Consumption:
        self.looked_at.append(now)
        return self.seen

    def keep_up(self) -> None:
        self.upkeeps += 1

    def be_replaced(self) -> None:
        self.replaced += 1

    @property
    def epoch(self) -> int:
        return self.tenure.epoch

    @property
    def record(self) -> Instance:
        found = self.store.snapshot().get("w1")
        assert found is not None
        return found

    def transitions(self) -> list[TransitionRecord]:
        return Events(self.store).pending_transitions("w1")

    def move(self, source: State, target: State) -> None:
        self.store.transition(
            Transition(
                instance="w1",
                epoch=self.epoch,
                source=source,
                target=target,
                event=Event.CONFIRMED,
                reason="by hand",
            )
        )


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "nxs_tasks.worker.heartbeat"]


class TestBeat:
    def test_what_is_seen_is_written(self, url: str) -> None:
        worker = Worker(url)
        own = worker.store.keys.own_queue("w1")
        for queue, count in ((own, 2), (f"{own}\x06\x169", 1), ("celery", 5)):
            worker.store.client.lpush(queue, *["x"] * count)
        worker.tally.succeeded, worker.tally.failed = 7, 2
        worker.heartbeat.beat()
        found = worker.record
        load = found.load
        assert (load.slots, load.running, load.waiting) == (4, 2, 1)
        assert (load.consuming, load.asked_s, load.queued) == (True, 0.5, 3)
        assert load.cores is not None
        assert load.cores >= 1
        assert load.load_avg is not None
        assert load.load_avg >= 0
        assert load.memory_used is not None
        assert load.memory_total is not None
        assert 0 < load.memory_used < load.memory_total
        assert load.latency_ms is not None
        assert load.latency_ms > 0
        assert (found.succeeded, found.failed, found.beats, found.stopped) == (7, 2, 1, False)

    def test_what_is_not_known_is_not_written(self, url: str) -> None:
        worker = Worker(url)
        worker.seen = UNKNOWN
        worker.heartbeat.beat()
        load = worker.record.load
        assert (load.slots, load.running, load.waiting) == (None, None, None)
        assert (load.consuming, load.asked_s) == (None, None)

    def test_beats_and_outcomes_go_on(self, url: str) -> None:
        worker = Worker(url)
        for total in (1, 3, 3):
            worker.tally.succeeded = total
            worker.heartbeat.beat()
        assert (worker.record.beats, worker.record.succeeded) == (3, 3)

    @pytest.mark.parametrize(("gap", "beats"), [(15.0, 3), (25.0, 1)])
    def test_one_missed_heartbeat_is_no_gap_and_two_are(
        self, url: str, gap: float, beats: int
    ) -> None:
        worker = Worker(url, heartbeat_period=9.0, gone_after=30.0)
        worker.heartbeat.beat()
        worker.heartbeat.beat()
        set_back(worker.store, "w1", "beat_at", gap)
        worker.heartbeat.beat()
        assert worker.record.beats == beats

    def test_the_consumer_is_judged_by_the_monotonic_clock(self, url: str) -> None:
        clock = FakeClock(start=5000.0)
        worker = Worker(url, clock)
        worker.heartbeat.beat()
        assert worker.looked_at == [5000.0]

    def test_latency_is_smoothed(self, url: str) -> None:
        class Ticking(FakeClock):
            """Each look at it takes a while: the round trip seems to take that long."""

            step = 0.0

            def monotonic(self) -> float:
                self.advance(self.step)
                return super().monotonic()

        clock = Ticking()
        worker = Worker(url, clock)
        for step, latency in [(0.010, 10.0), (0.110, 40.0), (0.010, 31.0)]:
            clock.step = step
            worker.heartbeat.beat()
            assert worker.record.load.latency_ms == pytest.approx(latency)


class TestOutage:
    def test_it_resumes_and_says_so_once_each_way(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(own_server.url)
        worker.heartbeat.beat_safely()
        for _ in range(2):
            caplog.clear()
            own_server.kill()
            for _ in range(3):
                worker.heartbeat.beat_safely()
            [pause] = messages(caplog)
            assert "heartbeats pause" in pause
            assert own_server.url in pause
            own_server.start()
            before = worker.record
            for _ in range(2):
                worker.heartbeat.beat_safely()
            assert messages(caplog)[1:] == ["heartbeats resume"]
            assert worker.record.beats == before.beats + 2
            assert worker.record.epoch == worker.epoch

    def test_a_heartbeat_that_failed_is_tried_again_soon(self, own_server: Server) -> None:
        worker = Worker(own_server.url, join_period=0.5)
        worker.move(State.JOINING, State.ACTIVE)
        worker.heartbeat.beat_safely()
        own_server.kill()
        worker.heartbeat.beat_safely()
        assert worker.heartbeat._period() == 0.5
        own_server.start()
        worker.heartbeat.beat_safely()
        assert worker.heartbeat._period() == 5.0

    def test_a_single_beat_raises(self, own_server: Server) -> None:
        worker = Worker(own_server.url)
        own_server.kill()
        with pytest.raises(BrokerUnreachable):
            worker.heartbeat.beat()

    def test_a_record_that_was_lost_is_announced_again_with_the_next_epoch(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(url)
        worker = Worker(url)  # a restart: epoch 2
        worker.tally.succeeded = 5
        worker.heartbeat.beat_safely()
        worker.store.client.flushdb()
        worker.heartbeat.beat_safely()
        found = worker.record
        assert (found.state, found.epoch, found.identity) == (State.JOINING, 3, "host/1")
        assert (worker.store.epoch("w1"), worker.epoch, worker.new_epochs) == (3, 3, [3])
        assert new_store(url).snapshot().instances[0].profile == PROFILE
        assert [t.event for t in worker.transitions()] == [Event.JOINED]
        assert ["its record was lost" in m for m in messages(caplog)] == [True]
        worker.heartbeat.beat_safely()
        assert (worker.record.beats, worker.record.succeeded) == (1, 5)
        assert len(messages(caplog)) == 1

    def test_who_announces_itself_again_is_soon_confirmed(self, url: str) -> None:
        worker = Worker(url, join_period=0.5)
        worker.move(State.JOINING, State.ACTIVE)
        worker.heartbeat.beat_safely()
        assert worker.heartbeat._period() == 5.0
        worker.store.client.flushdb()
        worker.heartbeat.beat_safely()
        assert worker.heartbeat._period() == 0.5

    def test_a_record_that_was_forgotten_is_announced_again_with_the_next_epoch(
        self, url: str
    ) -> None:
        worker = Worker(url)
        worker.heartbeat.beat_safely()
        keys = worker.store.keys
        worker.store.client.delete(keys.instance("w1"), keys.members())
        worker.heartbeat.beat_safely()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 2)
        assert worker.new_epochs == [2]
        worker.heartbeat.beat_safely()
        assert (worker.record.beats, worker.new_epochs, worker.replaced) == (1, [2], 0)

    def test_who_was_declared_gone_and_lives_joins_again(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With the next epoch: what it held has been given to others, or is about to be."""
        worker = Worker(url)
        worker.move(State.JOINING, State.GONE)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 2)
        assert (worker.epoch, worker.new_epochs, worker.replaced) == (2, [2], 0)
        assert [t.event for t in worker.transitions()][-1] == Event.JOINED
        assert "declared GONE, but alive" in messages(caplog)[0]
        worker.heartbeat.beat()
        assert worker.record.beats == 1
        assert len(messages(caplog)) == 1

    def test_who_failed_and_lives_joins_again_when_it_may(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(url)
        worker.move(State.JOINING, State.FAILED)
        for _ in range(3):
            worker.heartbeat.beat_safely()
        [told] = messages(caplog)
        assert "no work here: w1 did not become ACTIVE in time" in told
        assert worker.record.state is State.FAILED
        worker.store.admit(worker.record.id, "eve@desk")
        worker.heartbeat.beat_safely()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 2)

    def test_a_zombie_that_wakes_joins_again_with_its_epoch(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody has been given what it holds: it goes on with it."""
        worker = Worker(url)
        worker.move(State.JOINING, State.ZOMBIE)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 1)
        assert (worker.epoch, worker.new_epochs) == (1, [])
        last = worker.transitions()[-1]
        assert (last.source, last.event) == (State.ZOMBIE, Event.JOINED)
        assert "taken for a ZOMBIE, but alive" in messages(caplog)[0]
        worker.heartbeat.beat()
        assert worker.record.beats == 1
        assert len(messages(caplog)) == 1

    def test_a_deaf_zombie_waits_until_its_consumer_takes_work(self, url: str) -> None:
        worker = Worker(url)
        worker.seen = replace(SEEN, consuming=False)
        worker.move(State.JOINING, State.ZOMBIE)
        worker.heartbeat.beat()
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.deaf) == (State.ZOMBIE, 2)
        worker.seen = SEEN
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 1)

    def test_unknown_whether_it_takes_work_condemns_no_zombie(self, url: str) -> None:
        worker = Worker(url)
        worker.seen = UNKNOWN
        worker.move(State.JOINING, State.ZOMBIE)
        worker.heartbeat.beat()
        assert worker.record.state is State.JOINING

    def test_a_zombie_that_is_given_up_while_it_wakes_gets_the_next_epoch(self, url: str) -> None:
        class GivenUp(FleetStore):
            """Between the heartbeat and the join it is declared GONE."""

            def epoch(self, instance_id: str) -> int:
                worker.move(State.ZOMBIE, State.GONE)
                return super().epoch(instance_id)

        worker = Worker(url, store_class=GivenUp)
        worker.move(State.JOINING, State.ZOMBIE)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.epoch) == (State.JOINING, 2)
        assert (worker.epoch, worker.new_epochs) == (2, [2])

    @pytest.mark.parametrize("state", [State.GONE, State.ZOMBIE])
    def test_who_was_given_up_and_stops_does_not_join_again(self, url: str, state: State) -> None:
        worker = Worker(url)
        worker.move(State.JOINING, state)
        worker.heartbeat.stop()
        assert (worker.record.state, worker.record.stopped) == (state, True)
        assert worker.new_epochs == []

    def test_what_the_broker_has_not_heard_is_told_at_the_next_heartbeat(
        self, own_server: Server
    ) -> None:
        worker = Worker(own_server.url)
        inflight = worker.store.keys.inflight("w1", worker.epoch)
        token = str(worker.tenure.next_token())
        worker.store.client.hset(inflight, token, "a message")
        own_server.kill()
        worker.tenure.settle(Ending(token))
        own_server.start()
        assert worker.store.client.hexists(inflight, token)
        worker.heartbeat.beat_safely()
        assert not worker.store.client.exists(inflight)
        assert worker.tenure.settling() == set()
        assert worker.upkeeps == 1


class TestReplaced:
    def test_it_stops_writing_and_is_told_to_end(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(url)
        worker.heartbeat.beat_safely()
        worker.store.join("w1", "host/2", PROFILE, seen_epoch=1)
        before, recorded = worker.record, worker.transitions()
        worker.tally.succeeded = 5
        for _ in range(3):
            worker.heartbeat.beat_safely()
        assert worker.record == before
        assert worker.transitions() == recorded
        assert all("another process has taken the name" in m for m in messages(caplog))
        assert caplog.records[-1].levelno == logging.ERROR
        assert worker.replaced == 1
        assert worker.new_epochs == []
        with pytest.raises(Stale):
            worker.heartbeat.beat()

    def test_a_return_whose_answer_was_lost_is_no_replacement(self, url: str) -> None:
        class Deaf(FleetStore):
            lost = 0

            def join(self, *args: Any, **kwargs: Any) -> int:
                epoch = super().join(*args, **kwargs)
                if not self.lost:
                    self.lost = 1
                    raise BrokerUnreachable("the answer was lost")
                return epoch

        worker = Worker(url, store_class=Deaf)
        worker.move(State.JOINING, State.GONE)
        for _ in range(3):
            worker.heartbeat.beat_safely()
        assert (worker.replaced, worker.epoch, worker.new_epochs) == (0, 2, [2])
        assert (worker.record.epoch, worker.record.beats) == (2, 1)

    def test_neither_leaving_nor_stopping_touches_the_new_one(self, url: str) -> None:
        worker = Worker(url)
        worker.heartbeat.beat_safely()
        worker.store.join("w1", "host/2", PROFILE, seen_epoch=1)
        before, recorded = worker.record, worker.transitions()
        worker.heartbeat.leave("shutdown signal SIGTERM (warm)")
        worker.heartbeat.beat_safely()
        worker.heartbeat.stop()
        assert worker.record == before
        assert worker.transitions() == recorded

    @pytest.mark.parametrize(("lost", "looks"), [("its record", 1), ("its place", 1)])
    def test_who_is_replaced_while_it_announces_itself_again_gives_way(
        self, url: str, lost: str, looks: int
    ) -> None:
        """Around one of its looks at the epoch, before its join, the new process joins."""

        class Replaced(FleetStore):
            looks = 0

            def epoch(self, instance_id: str) -> int:
                self.looks += 1
                if self.looks == looks:
                    worker.store.join("w1", "host/2", PROFILE, seen_epoch=1)
                return super().epoch(instance_id)

        worker = Worker(url, store_class=Replaced)
        if lost == "its place":
            worker.move(State.JOINING, State.GONE)
        else:
            worker.store.client.delete(worker.store.keys.instance("w1"))
        for _ in range(2):
            worker.heartbeat.beat_safely()
        assert (worker.record.identity, worker.record.epoch) == ("host/2", 2)
        assert (worker.epoch, worker.new_epochs) == (1, [])
        assert worker.replaced >= 1


class TestLeaving:
    reason = "shutdown signal SIGTERM (warm)"

    @pytest.mark.parametrize("state", [State.JOINING, State.ACTIVE, State.DEGRADED])
    def test_it_is_recorded_with_its_reason(self, url: str, state: State) -> None:
        worker = Worker(url)
        if state is not State.JOINING:
            worker.move(State.JOINING, state)
        worker.heartbeat.leave(self.reason)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.verdict) == (State.LEAVING, self.reason)
        last = worker.transitions()[-1]
        assert (last.source, last.target, last.event) == (state, "LEAVING", Event.SHUTDOWN)
        assert (last.epoch, last.reason, last.evidence) == (1, self.reason, {"process": "host/1"})
        assert not worker.record.stopped

    def test_it_is_recorded_once_and_heartbeats_go_on(self, url: str) -> None:
        worker = Worker(url)
        worker.heartbeat.leave(self.reason)
        for _ in range(3):
            worker.heartbeat.beat()
        assert [t.target for t in worker.transitions()] == ["JOINING", "LEAVING"]
        assert worker.record.beats == 3

    def test_who_was_given_up_and_leaves_stays_as_it_is(self, url: str) -> None:
        worker = Worker(url)
        worker.move(State.JOINING, State.GONE)
        worker.heartbeat.leave(self.reason)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.new_epochs) == (State.GONE, [])
        assert worker.heartbeat._left.is_set(), "nobody waits for what will not come"

    def test_a_zombie_may_leave_and_finishes_what_it_runs(self, url: str) -> None:
        worker = Worker(url)
        worker.move(State.JOINING, State.ZOMBIE)
        worker.heartbeat.leave(self.reason)
        worker.heartbeat.beat()
        assert (worker.record.state, worker.record.epoch) == (State.LEAVING, 1)

    def test_stop_says_that_the_process_is_finished(self, url: str) -> None:
        worker = Worker(url)
        worker.tally.succeeded = 1
        worker.heartbeat.beat()
        worker.heartbeat.leave(self.reason)
        worker.tally.succeeded = 2
        worker.heartbeat.stop()
        assert (worker.record.state, worker.record.stopped) == (State.LEAVING, True)
        assert worker.record.succeeded == 2

    def test_stop_without_a_broker_ends(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(own_server.url)
        own_server.kill()
        worker.heartbeat.stop()
        assert "heartbeats pause" in messages(caplog)[0]


class TestThread:
    def until(self, condition: Callable[[], bool]) -> None:
        assert wait_until(condition, deadline_s=10, poll_s=0.01)

    def test_it_beats_fast_while_joining_and_then_as_is_set(self, url: str) -> None:
        worker = Worker(
            url,
            join_period=0.05,
            heartbeat_period=60.0,
            gone_after=100.0,
            silent_after=90.0,
            zombie_after=100.0,
            evict_after=200.0,
        )
        worker.heartbeat.start()
        try:
            self.until(lambda: worker.record.beats >= 3)
            assert worker.heartbeat._period() == 0.05
            worker.move(State.JOINING, State.ACTIVE)
            self.until(lambda: worker.heartbeat._state is State.ACTIVE)
            assert worker.heartbeat._period() == 60.0
            # Leaving does not wait for the next heartbeat.
            worker.heartbeat.leave("shutdown signal SIGTERM (warm)")
            self.until(lambda: worker.record.state is State.LEAVING)
        finally:
            worker.heartbeat.stop()
        assert not worker.heartbeat.is_alive()
        assert worker.record.stopped

    def test_it_outlives_a_restart_of_the_broker(self, own_server: Server) -> None:
        worker = Worker(own_server.url, join_period=0.05)
        worker.heartbeat.start()
        try:
            self.until(lambda: worker.record.beats >= 1)
            own_server.kill()
            own_server.start()
            before = worker.record.beats
            self.until(lambda: worker.record.beats > before)
        finally:
            worker.heartbeat.stop()

    def test_a_frozen_broker_does_not_keep_it_from_stopping(self, own_server: Server) -> None:
        worker = Worker(own_server.url, join_period=0.05, broker_timeout=0.1)
        worker.heartbeat.start()
        self.until(lambda: worker.record.beats >= 1)
        own_server.freeze()
        before = SYSTEM.monotonic()
        try:
            worker.heartbeat.stop()
        finally:
            own_server.thaw()
        assert SYSTEM.monotonic() - before < 2.0
        self.until(lambda: not worker.heartbeat.is_alive())


def test_the_load_that_is_observed_can_be_stored_and_read(url: str) -> None:
    worker = Worker(url)
    seen = worker.heartbeat.observe()
    worker.store.heartbeat("w1", 1, seen, longest_gap_s=10, succeeded=0, failed=0, window_days=7)
    assert isinstance(seen, Load)
    assert worker.record.load == seen


def test_while_a_message_is_kept_no_slot_counts_as_free(url: str) -> None:
    worker = Worker(url)
    worker.tenure.kept = Claimed("w1|1|1", "celery", "{}", intents=False, at=0.0)
    worker.heartbeat.beat()
    kept = worker.store.snapshot().get("w1")
    worker.tenure.kept = None
    worker.heartbeat.beat()
    free = worker.store.snapshot().get("w1")
    assert kept is not None
    assert free is not None
    assert (kept.load.extra, free.load.extra) == (4, None)
    assert kept.held is not None
    assert kept.held >= 4


def test_what_was_taken_ahead_takes_no_slot_beside_its_own(url: str) -> None:
    """It is held, and counts as that. Nothing waits for room because of it."""
    worker = Worker(url)
    worker.tenure.kept = Claimed("w1|1|1", "celery", "{}", intents=False, at=0.0, until=1.0)
    worker.heartbeat.beat()
    assert worker.record.load.extra is None
