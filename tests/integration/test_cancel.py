"""Cancelling through a real app, with nobody up."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from typing import Any

import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError
from kombu import Queue

from nxs_tasks.control.cancelling import tell
from nxs_tasks.errors import BrokerError, IntentRefused
from nxs_tasks.model.intent import Running
from nxs_tasks.model.shelf import CANCELLED, DELAYED, PARKED, QUARANTINE
from nxs_tasks.store.message import read
from nxs_tasks.store.queues import PAGE
from nxs_tasks.store.shelves import Shelves
from tests.conftest import MakeApp, Server, new_store
from tests.integration.mailroom import OWN, SHARED, Mailroom, Meanwhile

pytest_plugins = ["tests.integration.mailroom"]


class TestCancelling:
    def test_all_of_a_name_wherever_they_wait_and_nothing_that_comes_later(
        self, room: Mailroom
    ) -> None:
        mails = [room.mail.delay(n) for n in range(6)]
        pays = [room.pay.delay(n) for n in range(2)]
        shared = room.mail.delay(6)
        own, video = room.mail.delay(7), room.mail.apply_async((8,), queue="video")
        # Submitted last, so that it is the one that is moved.
        delayed, parked = room.mail.delay(9), room.mail.delay(10)
        room.shelve(parked, PARKED)
        room.shelve(delayed, DELAYED)
        room.move(own, OWN)
        told = room.fleet.cancel(task="shop.mail")
        assert told.withdrawn == {
            "queue celery": 7,
            f"queue {OWN}": 1,
            "queue video": 1,
            "shelf delayed": 1,
            "shelf parked": 1,
        }
        assert (told.found, told.running, told.missed, told.untold) == (11, (), (), "")
        later = room.mail.delay(11)
        assert room.ids() == [*(p.id for p in pays), later.id]
        assert room.ids(OWN) == []
        assert room.ids("video") == []
        assert room.intents.cancelled(later.id) is None
        cancelled = [*mails, shared, own, video, delayed, parked]
        assert all(room.intents.cancelled(m.id) for m in cancelled)
        assert room.fleet.intents().cancelled == len(cancelled)

    def test_a_priority_has_a_list_of_its_own(self, room: Mailroom) -> None:
        urgent = room.mail.apply_async((1,), priority=9)
        assert dict(room.fleet.cancel(urgent).withdrawn) == {"queue celery": 1}

    def test_who_waits_for_the_result_is_told_at_once(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.fleet.cancel(result)
        assert result.state == "REVOKED"
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)

    def test_a_result_that_nobody_wants_is_not_written(self, room: Mailroom) -> None:
        quiet = room.task("shop.quiet", ignore_result=True).delay()
        room.fleet.cancel(quiet.id)
        assert room.app.AsyncResult(quiet.id).state == "PENDING"

    def test_an_id_that_is_nowhere_will_not_run_if_it_comes(self, room: Mailroom) -> None:
        room.app.backend.store_result("done", 1, "SUCCESS")
        told = room.fleet.cancel("never-seen", "done")
        assert told.nowhere == {"never-seen": "", "done": "SUCCESS"}
        assert told.found == 0
        assert room.intents.is_cancelled("never-seen")
        again = room.fleet.cancel("never-seen")
        assert (again.before, again.nowhere) == (("never-seen",), {})

    def test_a_group_and_nothing_beside_it(self, room: Mailroom) -> None:
        beside = room.mail.delay(0)
        members = group(room.mail.s(n) for n in range(3)).apply_async()
        told = room.fleet.cancel(group=members)
        assert told.withdrawn == {"queue celery": 3}
        assert room.ids() == [beside.id]

    def test_parts_of_a_chord_wait_for_a_worker_that_tells_the_chord(self, room: Mailroom) -> None:
        room.pay.delay(0)
        body = chord([room.mail.s(n) for n in range(3)])(room.pay.s())
        told = room.fleet.cancel(task="shop.mail")
        assert (told.withdrawn, told.left) == ({}, {"queue celery": 3})
        parts = [part.id for part in body.parent.results]
        assert room.ids()[1:] == parts
        assert all(room.intents.is_cancelled(id_) for id_ in parts)

    def test_what_runs_is_marked_and_goes_on(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.hold(result)
        told = room.fleet.cancel(task="shop.mail")
        assert told.running == (Running(task_id=result.id, task="shop.mail", instance="w1@t"),)
        assert not told.terminated
        assert room.intents.is_cancelled(result.id)
        assert room.store.client.hlen(room.store.keys.inflight("w1@t", 1)) == 1
        assert result.state == "PENDING"

    def test_what_runs_is_told_to_end_by_celery_itself(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.hold(result)
        client: Any = room.store.client
        with client.pubsub(ignore_subscribe_messages=True) as workers:
            workers.psubscribe("*celery.pidbox")
            assert workers.get_message(timeout=20) is None, "the subscription itself"
            assert room.fleet.cancel(result, terminate=True).terminated
            heard: Any = workers.get_message(timeout=20)
        body = json.loads(b64decode(json.loads(heard["data"])["body"]))
        assert body["method"] == "revoke"
        assert body["arguments"]["task_id"] == [result.id]
        assert body["arguments"]["terminate"] is True

    def test_what_is_in_quarantine_stays_there_and_will_not_run(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.shelve(result, QUARANTINE)
        told = room.fleet.cancel(task="shop.mail")
        assert told.left == {"shelf quarantine": 1}
        assert Shelves(room.store).count(QUARANTINE) == 1
        assert room.intents.is_cancelled(result.id)

    def test_a_dry_run_says_the_same_and_changes_nothing(self, room: Mailroom) -> None:
        waits, held, delayed = (room.mail.delay(n) for n in range(3))
        room.shelve(delayed, DELAYED)
        room.hold(held)
        before = room.dump()
        wanted: dict[str, Any] = {"task": "shop.mail", "terminate": True}
        told = room.fleet.cancel("nowhere", waits.id, **wanted, dry_run=True)
        assert room.dump() == before
        done = room.fleet.cancel("nowhere", waits.id, **wanted)
        assert (told.withdrawn, told.running, told.nowhere, told.found) == (
            done.withdrawn, done.running, done.nowhere, done.found,
        )  # fmt: skip
        assert (told.dry_run, told.terminated) == (True, False)

    def test_nothing_and_an_empty_id_are_refused(self, room: Mailroom) -> None:
        with pytest.raises(IntentRefused, match="say what to cancel"):
            room.fleet.cancel()
        with pytest.raises(IntentRefused, match="an id is empty"):
            room.fleet.cancel("t1", "")
        assert room.fleet.intents().cancelled == 0

    def test_what_is_no_message_is_passed_over(self, room: Mailroom) -> None:
        room.store.client.lpush(SHARED, "no JSON", b"\xff\xfe")
        result = room.mail.delay(1)
        assert room.fleet.cancel(result).found == 1
        assert room.store.client.llen(SHARED) == 2

    def test_many_among_many(self, room: Mailroom) -> None:
        message, count = _message_of(room), 2 * PAGE + 100
        texts = [message.replace("THE-ID", f"t{n}") for n in range(count)]
        texts[::2] = [text.replace("shop.mail", "shop.pay") for text in texts[::2]]
        room.store.client.lpush(SHARED, *texts)
        assert room.fleet.cancel(task="shop.mail").withdrawn == {"queue celery": count // 2}
        assert room.ids() == [f"t{n}" for n in range(0, count, 2)]

    def test_a_queue_that_the_app_declares(self, url: str, make_app: MakeApp) -> None:
        queues = [Queue(SHARED), Queue("video")]
        room = Mailroom(make_app(url, {"task_queues": queues}), url)
        result = room.mail.delay(1)
        room.move(result, "video")
        assert room.fleet.cancel(result).withdrawn == {"queue video": 1}

    def test_what_a_worker_takes_in_this_moment_is_told(
        self, room: Mailroom, meanwhile: Meanwhile
    ) -> None:
        result = room.mail.delay(1)
        meanwhile("withdraw", lambda: room.store.client.rpop(SHARED))
        told = room.fleet.cancel(task="shop.mail")
        assert (told.missed, told.withdrawn, told.found) == ((result.id,), {}, 1)
        assert room.intents.is_cancelled(result.id)

    def test_what_a_worker_takes_and_holds_is_told_as_held(
        self, room: Mailroom, meanwhile: Meanwhile
    ) -> None:
        result = room.mail.delay(1)
        meanwhile("withdraw", lambda: room.hold(result))
        told = room.fleet.cancel(task="shop.mail")
        assert [r.task_id for r in told.running] == [result.id]
        assert (told.missed, told.found) == ((), 1)

    def test_what_a_worker_takes_and_puts_aside_is_found_there(
        self, room: Mailroom, meanwhile: Meanwhile
    ) -> None:
        result = room.mail.delay(1)
        meanwhile("withdraw", lambda: room.shelve(result, DELAYED))
        told = room.fleet.cancel(result)
        assert (told.missed, told.withdrawn) == ((), {"shelf delayed": 1})

    def test_workers_that_take_meanwhile_and_the_search_share_all_between_them(
        self, room: Mailroom
    ) -> None:
        """What a worker took after it was marked it knows to be cancelled; nothing is lost."""
        message = _message_of(room)
        all_ids = [f"t{n}" for n in range(4000)]
        for start in range(0, len(all_ids), 500):
            texts = [message.replace("THE-ID", id_) for id_ in all_ids[start : start + 500]]
            room.store.client.lpush(SHARED, *texts)
        taken: list[str] = []
        begun, stop = threading.Event(), threading.Event()

        def take() -> None:
            store = new_store(room.store.url)
            while not stop.is_set():
                text: Any = store.client.rpop(SHARED)
                if text:
                    taken.append(read(text).task_id)
                begun.set()

        worker = threading.Thread(target=take)
        worker.start()
        try:
            assert begun.wait(20)
            told = room.fleet.cancel(task="shop.mail")
        finally:
            stop.set()
            worker.join()
        kept = [e.task_id for e in Shelves(room.store).entries(CANCELLED)]
        assert len(kept) == sum(told.withdrawn.values())
        assert sorted(taken + kept) == sorted(all_ids), "each is taken or kept, and none both"
        assert kept, "the search was quicker with some"
        assert taken, "and the worker with others"
        assert set(told.missed) <= set(taken)
        assert all(room.intents.is_cancelled(id_) for id_ in told.missed)


def _message_of(room: Mailroom) -> str:
    room.mail.apply_async((1,), task_id="THE-ID")
    return str(room.store.client.lpop(SHARED))


def test_it_works_when_the_server_may_use_no_more_memory(
    own_server: Server, make_app: MakeApp
) -> None:
    room = Mailroom(make_app(own_server.url), own_server.url)
    task_id = room.mail.delay(1).id
    room.store.client.config_set("maxmemory", 1)
    with pytest.raises(BrokerError):
        room.fleet.pause(queue=SHARED)  # the server is full indeed
    told = room.fleet.cancel(task_id)
    assert told.withdrawn == {"queue celery": 1}
    assert told.untold, "a result needs room"
    room.store.client.config_set("maxmemory", 0)
    tell(room.fleet.runtime)
    assert room.app.AsyncResult(task_id).state == "REVOKED"
