"""A worker looks after its own consumer: on a real server, with a consumer that the test leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.bootsteps import CLOSE, RUN
from celery.worker import state as celery_state
from kombu import Consumer

from nxs_tasks.clock import FakeClock
from nxs_tasks.model.record import TransitionRecord
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store.events import Events
from nxs_tasks.store.intents import Intents
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker import remedies
from nxs_tasks.worker.capacity import Capacity
from nxs_tasks.worker.consumption import Consumption, read_consumption
from nxs_tasks.worker.healing import HEALING, Healing
from nxs_tasks.worker.remedies import EXIT_ANEW
from tests.conftest import add_instance, new_store
from tests.integration.claiming import OWN, MakeTaker, Taker, a_queue
from tests.integration.messages import message, put, task_ids

pytest_plugins = ["tests.integration.claiming_fixtures"]

SHARED = "celery"
WELL = Consumption(slots=2, running=0, early=0, waiting=0, consuming=True, asked_s=0.5, types={})
MUTE = replace(WELL, consuming=False, asked_s=9.0)
CANCELLED = replace(WELL, consuming=False, missing=frozenset({OWN, SHARED}))
#: Between two heartbeats, s.
PERIOD_S = 5.0


class Patient:
    """One worker's consumer as it is seen, and what is done about it."""

    def __init__(self, url: str) -> None:
        self.store = new_store(url)
        self.epoch = add_instance(self.store, "w1@t")
        self.clock = FakeClock()
        self.tenure = Tenure(self.store, "w1@t", self.epoch)
        self.seen = WELL
        self.state = State.ACTIVE
        #: What the event loop is asked to do.
        self.asked: list[Callable[[], Any]] = []
        self.worker = SimpleNamespace(
            blueprint=SimpleNamespace(state=RUN),
            consumer=SimpleNamespace(hub=object(), call_soon=self.call_soon),
            pool=SimpleNamespace(),
        )
        self.healing = Healing(
            self.worker,
            self.store,
            self.tenure,
            Settings(),
            self.clock,
            lambda now: self.seen,
            [OWN, SHARED],
        )
        self.beat()

    def call_soon(self, do: Callable[..., Any], *args: Any) -> None:
        self.asked.append(lambda: do(*args))

    def beat(self, times: int = 1) -> Consumption:
        """So many heartbeats; what the last one tells."""
        for _ in range(times):
            self.clock.advance(PERIOD_S)
            told = self.healing.look(self.clock.monotonic())
            self.healing.tend(self.state)
        return told

    def records(self) -> list[TransitionRecord]:
        return [t for t in Events(self.store).pending_transitions("w1@t") if t.event == HEALING]

    def done(self) -> list[str]:
        return [r.reason.partition(": it ")[2] or r.reason for r in self.records()]


@pytest.fixture
def patient(url: str) -> Patient:
    return Patient(url)


@pytest.fixture(autouse=True)
def _nobody_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_state, "should_stop", None)


class TestTheLadder:
    def test_who_takes_work_is_left_alone(self, patient: Patient) -> None:
        patient.beat(100)
        assert (patient.done(), patient.asked) == ([], [])

    def test_a_cancelled_consumer_consumes_again_after_two_looks(self, patient: Patient) -> None:
        patient.seen = CANCELLED
        patient.beat(1)
        assert patient.asked == []
        patient.beat(1)
        assert len(patient.asked) == 1
        [record] = patient.records()
        assert (record.source, record.target) == (State.ACTIVE, State.ACTIVE)
        assert "does not consume celery, nxs.default/w1@t" in record.reason
        patient.seen = WELL
        patient.beat(3)
        assert patient.done()[1:] == ["its consumer takes work again, after 10 s"]

    def test_it_climbs_and_ends_itself(self, patient: Patient) -> None:
        patient.seen = MUTE
        put(patient.store, OWN, message("waits"))
        patient.beat(7)
        assert [text.partition(",")[0] for text in patient.done()] == [
            "drops its connections to the broker",
            "gives back what waits for it and ends",
        ]
        assert celery_state.should_stop == EXIT_ANEW
        assert task_ids(patient.store, SHARED) == ["waits"]
        with pytest.raises(ConnectionResetError, match="takes no work"):
            patient.asked[0]()

    def test_who_does_not_end_is_killed(
        self, patient: Patient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed: list[bool] = []
        monkeypatch.setattr(remedies, "kill", lambda: killed.append(True))
        patient.seen = MUTE
        patient.beat(10)
        assert killed == []
        patient.beat(1)
        assert killed == [True]

    def test_who_is_ending_is_left_alone(self, patient: Patient) -> None:
        patient.seen = MUTE
        patient.beat(7)
        patient.worker.blueprint.state = CLOSE
        before = patient.done()
        patient.beat(20)
        assert patient.done() == before

    def test_one_good_look_does_not_end_it(self, patient: Patient) -> None:
        patient.seen = MUTE
        patient.beat(3)
        patient.seen = WELL
        patient.beat(1)
        patient.seen = MUTE
        patient.beat(3)
        assert len(patient.done()) == 2, "it goes on where it was"

    def test_it_begins_anew_after_two_good_looks(self, patient: Patient) -> None:
        for _ in range(3):
            patient.seen = MUTE
            patient.beat(3)
            patient.seen = WELL
            patient.beat(3)
        assert [text.partition(" ")[0] for text in patient.done()] == ["drops", "its"] * 3

    def test_unknown_neither_begins_nor_ends_it(self, patient: Patient) -> None:
        patient.seen = replace(WELL, consuming=None, asked_s=None)
        patient.beat(20)
        assert patient.done() == []
        patient.seen = MUTE
        patient.beat(3)
        patient.seen = replace(WELL, consuming=None, asked_s=None)
        patient.beat(5)
        assert len(patient.done()) == 2


class TestWhoIsSpared:
    def test_who_has_not_been_active_yet(self, patient: Patient) -> None:
        patient.healing._served, patient.state, patient.seen = False, State.JOINING, CANCELLED
        told = patient.beat(30)
        assert patient.asked == []
        assert told.consuming is False, "and does not become ACTIVE"

    def test_a_look_that_comes_late_says_nothing(self, patient: Patient) -> None:
        """Suspended with its machine, it has not neglected anything."""
        patient.seen = MUTE
        for _ in range(30):
            patient.clock.advance(60.0)
            assert patient.beat().consuming is None
        assert patient.asked == []

    def test_who_is_cordoned_is_not_called_deaf(self, patient: Patient) -> None:
        key = patient.store.keys.instance("w1@t")
        patient.store.client.hset(key, "cordoned", "by ann: disk")
        patient.seen = CANCELLED
        assert patient.beat().consuming is False, "it is found at this look"
        assert patient.beat(30).consuming is None
        assert patient.asked == []
        patient.store.client.hdel(key, "cordoned")
        patient.beat(2)
        assert len(patient.asked) == 1

    def test_what_was_paused_is_not_consumed_again(self, patient: Patient) -> None:
        """The shared queue stands for what waits in its own too."""
        Intents(patient.store).pause("queue", SHARED, "ann", "")
        patient.seen = CANCELLED
        patient.beat(30)
        assert patient.asked == []
        Intents(patient.store).resume("queue", SHARED)
        patient.beat(2)
        assert len(patient.asked) == 1

    def test_one_whose_name_is_anothers_does_nothing(self, patient: Patient) -> None:
        patient.tenure.epoch -= 1
        patient.seen = MUTE
        patient.beat(30)
        assert patient.asked == []

    def test_the_instant_between_two_tasks_is_no_finding(self, patient: Patient) -> None:
        looks = iter([MUTE, WELL])
        patient.healing._read = lambda now: next(looks)
        assert patient.beat() == WELL


class TestThirtyMinutesOfTakenSlots:
    """By what Celery and kombu say: heartbeats of a worker whose slots are all taken."""

    def test_nobody_is_found(self, patient: Patient) -> None:
        worker = a_worker(2, SimpleNamespace(task_consumer=None, task_buckets={}))
        busy = [_Request(), _Request()]
        for request in busy:
            celery_state.reserved_requests.add(request)
        try:
            patient.healing._read = lambda now: read(worker, now)
            for _ in range(360):
                assert patient.beat().consuming is True
        finally:
            for request in busy:
                celery_state.reserved_requests.discard(request)
        assert (patient.done(), patient.asked) == ([], [])


class _Request:
    """Stands for one of Celery's: only counted."""


def a_worker(slots: int, consumer: Any = None) -> Any:
    return SimpleNamespace(max_concurrency=slots, consumer=consumer, pool=None)


def read(worker: Any, now: float) -> Consumption:
    return read_consumption(worker, [OWN, SHARED], Capacity({}, lambda: 2, None), now)


class TestWhatIsSeen:
    """Of a channel that is really there."""

    @staticmethod
    def look(taker: Taker, pause_s: float = 0.0, slots: int = 2) -> Consumption:
        consumer = SimpleNamespace(task_consumer=taker.consumer, task_buckets={})
        at = (taker.channel._brpop_sent_at or 0.0) + pause_s
        return read(a_worker(slots, consumer), at)

    def test_who_asks_takes_work(self, make_taker: MakeTaker, url: str) -> None:
        taker = make_taker(url)
        assert self.look(taker).consuming is None, "it has not asked yet"
        taker.until_armed()
        assert self.look(taker, 4.9).consuming is True
        assert self.look(taker, 5.1).consuming is False

    def test_a_queue_that_was_cancelled_is_missing(self, make_taker: MakeTaker, url: str) -> None:
        taker = make_taker(url)
        taker.until_armed()
        taker.consumer.cancel_by_queue(SHARED)
        seen = self.look(taker)
        assert seen.consuming is False
        assert seen.missing == {SHARED}

    def test_so_is_one_that_was_cancelled_at_the_channel(
        self, make_taker: MakeTaker, url: str
    ) -> None:
        """By whoever has the channel in hand: kombu's consumer still thinks it consumes."""
        taker = make_taker(url)
        taker.until_armed()
        taker.channel.basic_cancel(taker.consumer._active_tags[OWN])
        assert taker.consumer.consuming_from(OWN)
        assert self.look(taker).missing == {OWN}

    def test_who_waits_for_a_rate_limit_is_full(self, make_taker: MakeTaker, url: str) -> None:
        taker = make_taker(url)
        taker.until_armed()
        bucket = SimpleNamespace(contents=[(_Request(), 1), (_Request(), 1)])
        consumer = SimpleNamespace(task_consumer=taker.consumer, task_buckets={"x": bucket})
        seen = read(a_worker(2, consumer), taker.channel._brpop_sent_at + 60)
        assert (seen.consuming, seen.full) == (True, True)


class TestRemedies:
    def test_what_was_cancelled_is_consumed_again_the_own_first(
        self, make_taker: MakeTaker, url: str
    ) -> None:
        taker = make_taker(url)
        app = Celery(set_as_current=False)
        for name in (OWN, SHARED, "mail"):
            app.amqp.queues[name] = a_queue(name)
        app.amqp.queues.select([OWN, SHARED, "mail"])
        taker.consumer.cancel()
        app.amqp.queues.deselect(OWN)
        consumer = Consumer(taker.channel, [a_queue("mail")], on_message=taker.got.append)
        consumer.consume()
        worker: Any = SimpleNamespace(
            app=app, consumer=SimpleNamespace(task_consumer=consumer, call_soon=_at_once)
        )
        remedies.consume_again(worker, [OWN, SHARED])
        assert list(app.amqp.queues.consume_from) == [OWN, SHARED, "mail"]
        assert taker.channel._active_queues == [OWN, SHARED, "mail"]
        put(taker.store, SHARED, message("second"))
        put(taker.store, OWN, message("first"))
        assert taker.until_got(2) == ["first", "second"]
        assert len(taker.held()) == 2, "they are claimed, as before"
        app.close()

    def test_without_an_event_loop_the_next_poll_loses_the_connection(
        self, make_taker: MakeTaker, url: str
    ) -> None:
        taker = make_taker(url)
        taker.until_armed()
        worker: Any = SimpleNamespace(consumer=SimpleNamespace(hub=None))
        remedies.connect_anew(worker, taker.tenure, "it takes no work")
        with pytest.raises(ConnectionResetError, match="it takes no work"):
            taker.drain(0.1)
        taker.connect()
        put(taker.store, SHARED, message("a"))
        assert taker.until_got(1) == ["a"], "once"


def _at_once(do: Callable[..., Any], *args: Any) -> None:
    do(*args)
