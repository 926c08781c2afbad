"""The store side of intents: the same tests on fakeredis and on the real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.errors import MessageError
from nxs_tasks.model.intent import InForce
from nxs_tasks.model.shelf import CANCELLED, DELAYED, PAUSED, Shelved
from nxs_tasks.store import FleetStore, Keys, Wire
from nxs_tasks.store.intents import BATCH, Intents, Unwanted
from nxs_tasks.store.message import read
from nxs_tasks.store.shelves import Shelves, entry_text
from nxs_tasks.worker.intents import WorkerIntents

DAY_S = 86_400.0
SHARED = "celery"
OWN = Keys("default").own_queue("w1@t")
PLAIN_BODY = "W1tdLCB7fSwge31d"  # [[], {}, {}]


def a_message(task_id: str, task: str = "shop.mail", **headers: Any) -> str:
    """As kombu writes it."""
    return json.dumps(
        {
            "body": headers.pop("body", PLAIN_BODY),
            "headers": {"task": task, "id": task_id, **headers},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": SHARED},
                "delivery_tag": f"tag-{task_id}",
                "priority": 0,
            },
        }
    )


def put(store: FleetStore, key: str, *texts: str) -> None:
    """Publish, the first first."""
    for start in range(0, len(texts), 1000):
        store.client.lpush(key, *texts[start : start + 1000])


def ids(store: FleetStore, key: str = SHARED) -> list[str]:
    """Ids in a list, what is taken next first."""
    texts: Any = store.client.lrange(key, 0, -1)
    return [read(text).task_id for text in reversed(texts)]


def unwanted(
    store: FleetStore, key: str, *wanted: str, target: str | None = None
) -> list[Unwanted]:
    """Messages of a list as a search finds them."""
    texts: Any = store.client.lrange(key, 0, -1)
    found = []
    for place, text in enumerate(reversed(texts)):
        known = read(text)
        if known.task_id in wanted:
            entry = Shelved(
                id="",
                at=0.0,
                list=key if target is None else target,
                message=text,
                reason="",
                task_id=known.task_id,
                task=known.task,
            )
            found.append(Unwanted(text, place, entry, known.unique_key, known.ignores_result))
    return found


def kept(store: FleetStore) -> list[Shelved]:
    return list(Shelves(store).entries(CANCELLED))


def shelve(store: FleetStore, shelf: str, *task_ids: str, task: str = "shop.mail") -> None:
    """One after the other."""
    for at, task_id in enumerate(task_ids):
        entry = Shelved(
            id=f"entry-{task_id}",
            at=float(at),
            list=SHARED,
            message=a_message(task_id, task),
            reason="is paused",
            task_id=task_id,
            task=task,
        )
        store.client.hset(store.keys.shelf(shelf), entry.id, entry_text(entry))
        store.client.zadd(store.keys.shelf_index(shelf), {entry.id: entry.at})


def no_home(task: str) -> str:
    raise AssertionError(f"{task} has a list to go to")


class TestMarking:
    def test_an_id_is_remembered_with_when_and_by_whom(self, store: FleetStore) -> None:
        intents = Intents(store)
        assert intents.cancelled("t1") is None
        before = store.now()
        assert intents.cancel(["t1"], 'ann "a" é@host', 7 * DAY_S) == []
        found = intents.cancelled("t1")
        assert found is not None
        assert found.at is not None
        assert before - 1 <= found.at <= store.now() + 1
        assert (found.task_id, found.by) == ("t1", 'ann "a" é@host')
        assert found.until == pytest.approx(found.at + 7 * DAY_S, abs=0.01)
        assert intents.in_force() == InForce(pauses=(), cancelled=1)

    def test_again_it_is_remembered_for_longer_and_by_who_was_first(
        self, store: FleetStore
    ) -> None:
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", DAY_S)
        first = intents.cancelled("t1")
        assert intents.cancel(["t0", "t1"], "bob@host", 2 * DAY_S) == ["t1"]
        again = intents.cancelled("t1")
        assert first is not None
        assert again is not None
        assert (again.at, again.by) == (first.at, "ann@host")
        assert again.until > first.until

    def test_what_a_worker_asks(self, store: FleetStore) -> None:
        asks = WorkerIntents(store)
        Intents(store).cancel(["t1"], "ann@host", DAY_S)
        Intents(store).pause("task", "shop.mail", "ann@host")
        assert [asks.is_cancelled(id_) for id_ in ("t1", "t2")] == [True, False]
        assert [asks.is_paused(task) for task in ("shop.mail", "shop.pay")] == [True, False]

    def test_fleets_do_not_mix(self, store: FleetStore) -> None:
        Intents(store).cancel(["t1"], "ann@host", DAY_S)
        Intents(store).pause("queue", SHARED, "ann@host")
        other = FleetStore(store.client, Keys("other"), Wire(), SHARED, store.url)
        assert Intents(other).in_force() == InForce(pauses=(), cancelled=0)

    def test_more_than_one_batch(self, store: FleetStore) -> None:
        many = [f"t{n}" for n in range(2 * BATCH + 1)]
        assert Intents(store).cancel(many, "ann@host", DAY_S) == []
        assert Intents(store).in_force().cancelled == len(many)

    def test_it_can_be_taken_back(self, store: FleetStore) -> None:
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", DAY_S)
        assert intents.uncancel("t1") is True
        assert intents.uncancel("t1") is False
        assert intents.cancelled("t1") is None
        assert store.client.keys("*") == []


class TestWithdrawing:
    def test_a_message_is_kept_as_it_was_and_the_others_keep_their_order(
        self, store: FleetStore
    ) -> None:
        texts = [a_message(f"t{n}") for n in range(5)]
        put(store, SHARED, *texts)
        there = Intents(store).withdraw(SHARED, unwanted(store, SHARED, "t1", "t3"))
        assert there == [True, True]
        assert ids(store) == ["t0", "t2", "t4"]
        found = kept(store)
        assert [e.message for e in found] == [texts[1], texts[3]]
        assert [(e.id, e.task_id, e.task, e.list, e.reason) for e in found] == [
            ("t1", "t1", "shop.mail", SHARED, "cancelled"),
            ("t3", "t3", "shop.mail", SHARED, "cancelled"),
        ]

    def test_of_a_long_list_with_many_batches(self, store: FleetStore) -> None:
        count = 5 * BATCH + 7
        put(store, SHARED, *(a_message(f"t{n}") for n in range(count)))
        odd = [f"t{n}" for n in range(1, count, 2)]
        there = Intents(store).withdraw(SHARED, unwanted(store, SHARED, *odd))
        assert there == [True] * len(odd)
        assert ids(store) == [f"t{n}" for n in range(0, count, 2)]
        assert [e.task_id for e in kept(store)] == odd

    def test_what_a_worker_takes_in_this_moment_is_told_and_not_kept(
        self, store: FleetStore
    ) -> None:
        put(store, SHARED, *(a_message(f"t{n}") for n in range(6)))
        found = unwanted(store, SHARED, "t1", "t4")
        for _ in range(3):
            store.client.rpop(SHARED)
        assert Intents(store).withdraw(SHARED, found) == [False, True]
        assert ids(store) == ["t3", "t5"]
        assert [e.task_id for e in kept(store)] == ["t4"]

    def test_what_is_given_back_in_this_moment_hides_nothing(self, store: FleetStore) -> None:
        put(store, SHARED, *(a_message(f"t{n}") for n in range(4)))
        found = unwanted(store, SHARED, "t0", "t3")
        store.client.rpush(SHARED, *(a_message(f"back{n}") for n in range(9)))
        assert Intents(store).withdraw(SHARED, found) == [True, True]
        assert ids(store) == [*(f"back{n}" for n in reversed(range(9))), "t1", "t2"]

    def test_off_a_shelf(self, store: FleetStore) -> None:
        shelve(store, DELAYED, "t1", "t2")
        entry = Shelves(store).find(DELAYED, "t1")[0]
        gone = Shelved(**{**_fields(entry), "id": "no-such-entry", "task_id": "t9"})
        found = [Unwanted(e.id, 0, e) for e in (entry, gone)]
        assert Intents(store).withdraw(DELAYED, found, shelf=True) == [True, False]
        assert [e.task_id for e in Shelves(store).entries(DELAYED)] == ["t2"]
        assert Shelves(store).count(DELAYED) == 1
        [k] = kept(store)
        assert (k.task_id, k.message, k.list, k.reason) == (
            "t1", a_message("t1"), SHARED, "cancelled",
        )  # fmt: skip

    def test_two_messages_of_one_task_are_both_kept(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1"), a_message("t1", retries=1))
        assert Intents(store).withdraw(SHARED, unwanted(store, SHARED, "t1")) == [True, True]
        assert [(e.id, e.task_id) for e in kept(store)] == [("t1", "t1"), ("t1:1", "t1")]

    def test_bytes_that_are_no_text_come_through(self, store: FleetStore) -> None:
        text = a_message("t1").replace("tag-t1", "caf\udce9")
        put(store, SHARED, text)
        Intents(store).withdraw(SHARED, unwanted(store, SHARED, "t1"))
        assert kept(store)[0].message == text

    def test_it_frees_its_own_unique_key_and_nobody_else_s(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1", nxs_unique="a"), a_message("t2", nxs_unique="b"))
        store.client.set(store.keys.unique("a"), "t1")
        store.client.set(store.keys.unique("b"), "another")
        Intents(store).withdraw(SHARED, unwanted(store, SHARED, "t1", "t2"))
        assert store.client.get(store.keys.unique("a")) is None
        assert store.client.get(store.keys.unique("b")) == "another"

    def test_its_result_is_to_be_told_unless_nobody_wants_it(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1"), a_message("t2", ignore_result=True))
        intents = Intents(store)
        intents.withdraw(SHARED, unwanted(store, SHARED, "t1", "t2"))
        assert intents.untold() == {"t1": "shop.mail"}
        intents.told(["t1"])
        assert intents.untold() == {}


class TestReinstating:
    def test_a_message_comes_to_be_taken_next(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1"), a_message("t2"))
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", DAY_S)
        intents.withdraw(SHARED, unwanted(store, SHARED, "t1"))
        [entry] = kept(store)
        assert intents.reinstate(entry, no_home) == ""
        assert ids(store) == ["t1", "t2"]
        assert intents.cancelled("t1") is None
        assert intents.untold() == {}
        assert kept(store) == []
        assert intents.reinstate(entry, no_home) is None, "it is back already"
        assert ids(store) == ["t1", "t2"]

    def test_one_from_an_own_queue_goes_where_it_belongs_now(self, store: FleetStore) -> None:
        put(store, OWN, a_message("t1"))
        intents = Intents(store)
        intents.withdraw(OWN, unwanted(store, OWN, "t1", target=""))
        assert intents.reinstate(kept(store)[0], lambda task: f"for-{task}") == ""
        [raw] = store.client.lrange("for-shop.mail", 0, -1)
        assert json.loads(raw)["properties"]["delivery_info"]["routing_key"] == "for-shop.mail"

    def test_it_takes_its_unique_key_again(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1", nxs_unique="a"))
        store.client.set(store.keys.unique("a"), "t1")
        intents = Intents(store)
        intents.withdraw(SHARED, unwanted(store, SHARED, "t1"))
        assert intents.reinstate(kept(store)[0], no_home) == ""
        assert store.client.get(store.keys.unique("a")) == "t1"

    def test_it_stays_cancelled_if_another_has_its_unique_key_now(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1", nxs_unique="a"))
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", DAY_S)
        intents.withdraw(SHARED, unwanted(store, SHARED, "t1"))
        store.client.set(store.keys.unique("a"), "t2")
        assert intents.reinstate(kept(store)[0], no_home) == "t2"
        assert ids(store) == []
        assert intents.cancelled("t1") is not None
        assert len(kept(store)) == 1

    def test_what_is_no_message_is_refused(self, store: FleetStore) -> None:
        entry = Shelved(id="x", at=0.0, list=SHARED, message="no JSON", reason="")
        with pytest.raises(MessageError):
            Intents(store).reinstate(entry, no_home)


class TestForgetting:
    def test_what_is_due_goes_with_all_that_was_kept_of_it(self, store: FleetStore) -> None:
        put(store, SHARED, a_message("t1"), a_message("t1", retries=1), a_message("t2"))
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", -1)
        intents.cancel(["t2"], "ann@host", DAY_S)
        intents.withdraw(SHARED, unwanted(store, SHARED, "t1", "t2"))
        assert intents.due() == ["t1"]
        assert intents.forget(["t1"]) == 1
        assert [e.task_id for e in kept(store)] == ["t2"]
        assert Shelves(store).count(CANCELLED) == 1
        assert intents.untold() == {"t2": "shop.mail"}
        assert intents.cancelled("t1") is None
        assert store.client.hkeys(store.keys.cancellations()) == ["t2"]

    def test_what_was_cancelled_again_meanwhile_is_not_forgotten(self, store: FleetStore) -> None:
        intents = Intents(store)
        intents.cancel(["t1"], "ann@host", -1)
        due = intents.due()
        intents.cancel(["t1"], "ann@host", DAY_S)
        assert intents.forget(due) == 0
        assert intents.cancelled("t1") is not None


class TestPauses:
    def test_they_are_told_with_since_when_by_whom_and_why(self, store: FleetStore) -> None:
        intents = Intents(store)
        assert intents.pauses() == ()
        before = store.now()
        assert intents.pause("task", "shop.mail", "ann@host", 'the "relay" is down') is True
        assert intents.pause("queue", "video", "bob@host") is True
        queue, task = intents.pauses()
        assert (queue.kind, queue.name, queue.by, queue.reason) == (
            "queue", "video", "bob@host", "",
        )  # fmt: skip
        assert (task.kind, task.name, task.by, task.reason) == (
            "task", "shop.mail", "ann@host", 'the "relay" is down',
        )  # fmt: skip
        assert task.since is not None
        assert before - 1 <= task.since <= store.now() + 1
        assert store.client.smembers(store.keys.paused_queues()) == {"video"}
        assert store.client.smembers(store.keys.paused_tasks()) == {"shop.mail"}

    def test_again_it_keeps_its_time_and_takes_a_new_reason(self, store: FleetStore) -> None:
        intents = Intents(store)
        intents.pause("queue", "video", "ann@host", "first")
        [first] = intents.pauses()
        assert intents.pause("queue", "video", "bob@host") is False
        assert intents.pauses() == (first,)
        assert intents.pause("queue", "video", "bob@host", "second") is False
        [second] = intents.pauses()
        assert (second.since, second.by, second.reason) == (first.since, "bob@host", "second")

    def test_they_are_sorted(self, store: FleetStore) -> None:
        names = ["d", "b", "a", "e", "c"]
        for name in names:
            Intents(store).pause("queue", name, "ann@host")
        assert [p.name for p in Intents(store).pauses()] == sorted(names)

    def test_it_ends(self, store: FleetStore) -> None:
        intents = Intents(store)
        intents.pause("queue", "video", "ann@host")
        assert intents.resume("task", "video") is False, "a queue is no task"
        assert intents.resume("queue", "video") is True
        assert intents.resume("queue", "video") is False
        assert store.client.keys("*") == []

    def test_one_that_was_written_by_hand_is_shown(self, store: FleetStore) -> None:
        store.client.sadd(store.keys.paused_queues(), "video")
        store.client.hset(store.keys.pauses(), "queue:video", "no JSON")
        [pause] = Intents(store).pauses()
        assert (pause.name, pause.since, pause.by, pause.reason) == ("video", None, "", "")
        Intents(store).pause("queue", "video", "ann@host", "now it is known")
        [pause] = Intents(store).pauses()
        assert pause.since is not None

    def test_what_was_put_aside_comes_back_to_the_front_in_order(self, store: FleetStore) -> None:
        shelve(store, PAUSED, "t1", "t2", "t3")
        shelve(store, PAUSED, "other", task="shop.pay")
        put(store, SHARED, a_message("waits"))
        assert Intents(store).take_back("shop.mail") == 3
        assert ids(store) == ["t1", "t2", "t3", "waits"]
        assert [e.task_id for e in Shelves(store).entries(PAUSED)] == ["other"]

    def test_what_is_paused_again_meanwhile_stays(self, store: FleetStore) -> None:
        shelve(store, PAUSED, "t1")
        Intents(store).pause("task", "shop.mail", "ann@host")
        assert Intents(store).take_back("shop.mail") == 0
        assert Shelves(store).count(PAUSED) == 1


def _fields(entry: Shelved) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}
