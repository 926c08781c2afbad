"""Taking a message: in the right order, never without a holder, never by who is displaced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.errors import BrokerError
from nxs_tasks.model.shelf import DELAYED, QUARANTINE
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.store import FleetStore, Wire
from nxs_tasks.store.claim import MOVE_DUE, keys_and_arguments
from nxs_tasks.store.shelves import Shelves, entry_text
from tests.integration.holding import DISPLACED, NOTHING, TAKEN, Process, an_entry, ids
from tests.integration.messages import GARBAGE, OWN, SHARED, message, put, task_ids

LIVING = [s for s in State if s not in ENDED]


def delay(store: FleetStore, *names: str, in_s: float, queue: str = SHARED) -> None:
    """Put messages on the shelf; each a little after the one before."""
    for n, name in enumerate(names):
        at = store.now() + in_s + n / 1000
        entry = an_entry(f"entry-{name}", message(name), at=at, list=store.wire.list_of(queue, 0))
        store.client.hset(store.keys.shelf(DELAYED), entry.id, entry_text(entry))
        store.client.zadd(store.keys.shelf_index(DELAYED), {entry.id: entry.at})


def everything(store: FleetStore) -> dict[str, Any]:
    """All that is in Redis."""
    found: dict[str, Any] = {}
    for key in sorted(store.client.scan_iter()):
        kind = store.client.type(key)
        readers: dict[Any, Any] = {
            "list": lambda key: store.client.lrange(key, 0, -1),
            "hash": store.client.hgetall,
            "set": store.client.smembers,
            "zset": lambda key: store.client.zrange(key, 0, -1, withscores=True),
            "string": store.client.get,
            "stream": store.client.xrange,
        }
        found[str(key)] = readers[kind](key)
    return found


class TestOrder:
    def test_the_oldest_comes_first(self, store: FleetStore) -> None:
        put(store, SHARED, message("a"), message("b"), message("c"))
        assert ids(Process(store).take_all()) == ["a", "b", "c"]

    def test_every_priority_in_its_order_and_the_own_queue_before_the_shared(
        self, store: FleetStore
    ) -> None:
        for priority in reversed(store.wire.steps):
            put(store, SHARED, message(f"shared-{priority}"), priority=priority)
            put(store, OWN, message(f"own-{priority}"), priority=priority)
        taken = ids(Process(store).take_all())
        assert taken == [f"{q}-{p}" for p in store.wire.steps for q in ("own", "shared")]

    def test_the_queues_are_looked_into_as_they_are_named(self, store: FleetStore) -> None:
        for queue in (OWN, SHARED, "mail"):
            put(store, queue, message(queue))
        assert ids(Process(store).take_all("mail", SHARED, OWN)) == ["mail", SHARED, OWN]

    def test_a_queue_that_is_not_named_keeps_its_messages(self, store: FleetStore) -> None:
        put(store, OWN, message("a"))
        assert Process(store).take_all(SHARED, "mail") == []
        assert task_ids(store, OWN) == ["a"]

    def test_the_answer_names_queue_and_message(self, store: FleetStore) -> None:
        put(store, "mail", message("a"), priority=6)
        assert Process(store).ask("mail")[:3] == [TAKEN, "mail", message("a")]


class TestHolder:
    def test_what_is_taken_is_held_and_no_longer_waits(self, store: FleetStore) -> None:
        put(store, SHARED, message("a"), message("b"))
        process = Process(store)
        before = store.now()
        token = process.take()
        assert token == f"w1|{process.epoch}|1"
        assert process.held() == {token: (message("a"), SHARED)}
        index: Any = store.client.zrange(process.index, 0, -1, withscores=True)
        [(member, since)] = index
        assert member == token
        assert before <= since <= store.now()
        assert task_ids(store, SHARED) == ["b"]

    def test_each_delivery_has_its_own_token(self, store: FleetStore) -> None:
        put(store, SHARED, *map(message, "abc"))
        process = Process(store)
        for _ in range(3):
            process.take()
        assert process.held_ids() == ["a", "b", "c"]

    def test_nothing_to_take_changes_nothing(self, store: FleetStore) -> None:
        process = Process(store)
        before = everything(store)
        assert process.ask() == [NOTHING, -1]
        assert everything(store) == before

    def test_it_is_held_before_it_is_popped(self, store: FleetStore) -> None:
        """A script that fails half-way is not undone: here it may not write into the hash."""
        put(store, SHARED, message("a"))
        process = Process(store)
        store.client.set(process.hash, "no hash")
        with pytest.raises(BrokerError):
            process.ask()
        assert task_ids(store, SHARED) == ["a"]

    @pytest.mark.parametrize("raw", [*GARBAGE, b"[" * 5000, b', "", "celery"]', b"\r\n\x00\\"])
    def test_what_is_no_message_comes_back_byte_by_byte(
        self, store: FleetStore, raw: bytes
    ) -> None:
        put(store, SHARED, raw)
        process = Process(store)
        _, queue, answered, *_ = process.ask()
        [(held, queue_of_held)] = process.held().values()
        assert (queue, queue_of_held) == (SHARED, SHARED)
        for text in (answered, held):
            assert text.encode("utf-8", "surrogateescape") == raw

    @pytest.mark.parametrize("queue", ["größe", 'a "b" \\c', "x, y/z", ', "", ', "7", "[]"])
    def test_a_queue_of_any_name_is_remembered(self, store: FleetStore, queue: str) -> None:
        put(store, queue, message("a"))
        process = Process(store)
        assert process.ask(queue)[1] == queue
        assert list(process.held().values()) == [(message("a"), queue)]

    def test_keys_as_the_app_has_set_them_up(self, store: FleetStore) -> None:
        wire = Wire(prefix="shop:", sep="~", steps=(0, 5))
        odd = FleetStore(store.client, store.keys, wire, SHARED, store.url)
        put(store, SHARED, message("another app's"))
        store.client.lpush("shop:celery", message("a"))
        store.client.lpush("shop:celery~5", message("b"))
        process = Process(odd)
        assert ids(process.take_all()) == ["a", "b"]
        assert process.hash == "shop:nxs:{default}:inflight:w1:1"
        assert process.held_ids() == ["a", "b"]
        assert task_ids(store, SHARED) == ["another app's"]


class TestPaused:
    def pause(self, store: FleetStore, *queues: str) -> None:
        store.client.sadd(store.keys.paused_queues(), *queues)

    def test_a_paused_queue_gives_nothing_and_hinders_no_other(self, store: FleetStore) -> None:
        put(store, "mail", message("a"))
        put(store, SHARED, message("b"), priority=9)
        self.pause(store, "mail")
        assert ids(Process(store).take_all("mail", SHARED)) == ["b"]
        assert task_ids(store, "mail") == ["a"]

    def test_in_all_its_priorities(self, store: FleetStore) -> None:
        for priority in store.wire.steps:
            put(store, "mail", message("a"), priority=priority)
        self.pause(store, "mail")
        assert Process(store).ask("mail") == [NOTHING, -1]

    def test_with_the_shared_queue_the_own_queues_are_paused(self, store: FleetStore) -> None:
        """What waits there was placed there instead of in the shared one."""
        put(store, OWN, message("a"))
        put(store, "mail", message("b"))
        self.pause(store, SHARED)
        assert ids(Process(store).take_all(OWN, SHARED, "mail")) == ["b"]
        store.client.srem(store.keys.paused_queues(), SHARED)
        assert ids(Process(store).take_all(OWN, SHARED, "mail")) == ["a"]

    def test_an_own_queue_is_not_paused_by_its_own_name(self, store: FleetStore) -> None:
        put(store, OWN, message("a"))
        self.pause(store, OWN)
        assert ids(Process(store).take_all()) == ["a"]


class TestDelayed:
    def test_what_is_due_is_appended_to_its_list(self, store: FleetStore) -> None:
        put(store, SHARED, message("waits"))
        delay(store, "a", "b", in_s=-1.0)
        assert ids(Process(store).take_all()) == ["waits", "a", "b"]
        assert Shelves(store).count(DELAYED) == 0
        assert not store.client.exists(store.keys.shelf_index(DELAYED))

    def test_what_is_not_due_stays_and_is_announced_in_ms(self, store: FleetStore) -> None:
        delay(store, "later", "sooner", in_s=200.0)
        delay(store, "sooner", in_s=100.0)
        kind, due_ms = Process(store).ask()
        assert kind == NOTHING
        assert 60_000 < due_ms <= 100_000
        assert Shelves(store).count(DELAYED) == 2

    def test_the_due_time_is_told_also_if_it_is_now(self, store: FleetStore) -> None:
        delay(store, "a", in_s=0.0)
        answers: list[list[Any]] = []
        process = Process(store)
        while not answers or answers[-1][0] == NOTHING:
            answers.append(process.ask())
        assert all(0 <= due_ms <= 1 for _, due_ms in answers[:-1])

    def test_it_goes_to_its_own_list_also_if_others_take_from_there(
        self, store: FleetStore
    ) -> None:
        delay(store, "a", in_s=-1.0, queue="mail")
        assert Process(store).ask() == [NOTHING, -1]
        assert task_ids(store, "mail") == ["a"]

    def test_what_is_due_waits_in_a_paused_queue(self, store: FleetStore) -> None:
        store.client.sadd(store.keys.paused_queues(), SHARED)
        delay(store, "a", in_s=-1.0)
        assert Process(store).ask() == [NOTHING, -1]
        assert task_ids(store, SHARED) == ["a"]

    def test_one_claim_moves_so_many_and_the_next_moves_on(self, store: FleetStore) -> None:
        names = [f"t{n:03}" for n in range(MOVE_DUE + 20)]
        delay(store, *names, in_s=-1.0)
        process = Process(store)
        process.take()
        assert len(task_ids(store, SHARED)) == MOVE_DUE - 1
        process.take()
        assert len(task_ids(store, SHARED)) == len(names) - 2
        assert [*process.held_ids(), *task_ids(store, SHARED)] == names

    def test_it_is_delivered_byte_by_byte(self, store: FleetStore) -> None:
        raw = b"\xff\x00\n, two lines\n"
        text = entry_text(an_entry("e", raw.decode("utf-8", "surrogateescape")))
        store.client.hset(store.keys.shelf(DELAYED), "e", text)
        store.client.zadd(store.keys.shelf_index(DELAYED), {"e": 1.0})
        [taken] = Process(store).take_all()
        assert taken.encode("utf-8", "surrogateescape") == raw

    def test_an_index_without_its_entry_is_passed_over(self, store: FleetStore) -> None:
        store.client.zadd(store.keys.shelf_index(DELAYED), {"nobody": 1.0})
        put(store, SHARED, message("a"))
        assert ids(Process(store).take_all()) == ["a"]
        assert not store.client.exists(store.keys.shelf_index(DELAYED))

    @pytest.mark.parametrize(
        "text",
        ["", "no line", "{", "{\nx", "\nx", "[]\nx", "null\nx", '{"list": 5}\nx', '{"a": 1}\nx'],
    )
    def test_an_entry_that_cannot_be_read_is_put_aside_and_stops_nobody(
        self, store: FleetStore, text: str
    ) -> None:
        store.client.hset(store.keys.shelf(DELAYED), "odd", text)
        store.client.zadd(store.keys.shelf_index(DELAYED), {"odd": 1.0})
        delay(store, "a", in_s=-1.0)
        assert ids(Process(store).take_all()) == ["a"]
        assert store.client.hgetall(store.keys.shelf(QUARANTINE)) == {"odd": text}
        [entry] = Shelves(store).entries(QUARANTINE)
        assert (entry.id, entry.list) == ("odd", "5" if "5" in text else "")
        assert abs(entry.at - store.now()) < 60
        assert Shelves(store).count(DELAYED) == 0

    def test_nor_does_one_whose_list_is_none(self, store: FleetStore) -> None:
        store.client.set("text", "no list")
        delay(store, "odd", in_s=-2.0, queue="text")
        delay(store, "a", in_s=-1.0)
        assert ids(Process(store).take_all()) == ["a"]
        [entry] = Shelves(store).entries(QUARANTINE)
        assert entry.id == "entry-odd"


class TestFence:
    """A process that has lost its place is given nothing, and moves nothing."""

    def fill(self, store: FleetStore) -> dict[str, Any]:
        put(store, SHARED, message("a"))
        delay(store, "b", in_s=-1.0)
        return everything(store)

    @pytest.mark.parametrize("state", sorted(ENDED))
    def test_one_that_was_given_up(self, store: FleetStore, state: State) -> None:
        process = Process(store)
        process.is_now(state)
        before = self.fill(store)
        assert process.ask() == [DISPLACED, str(process.epoch)]
        assert everything(store) == before

    def test_one_whose_name_is_another_s(self, store: FleetStore) -> None:
        process = Process(store)
        successor = process.loses_its_name()
        before = self.fill(store)
        assert process.ask() == [DISPLACED, str(successor.epoch)]
        assert everything(store) == before
        assert ids(successor.take_all()) == ["a", "b"]

    def test_one_that_is_forgotten(self, store: FleetStore) -> None:
        process = Process(store)
        process.is_forgotten()
        before = self.fill(store)
        assert process.ask() == [DISPLACED, ""]
        assert everything(store) == before

    def test_who_leaves_is_given_nothing_more(self, store: FleetStore) -> None:
        process = Process(store)
        process.is_now(State.LEAVING)
        self.fill(store)
        assert process.ask() == [NOTHING, -1]
        assert process.held() == {}

    @pytest.mark.parametrize("state", [s for s in LIVING if s is not State.LEAVING])
    def test_all_others_are_given_work(self, store: FleetStore, state: State) -> None:
        process = Process(store)
        process.is_now(state)
        self.fill(store)
        assert ids(process.take_all()) == ["a", "b"]


class TestIntents:
    def flag(self, store: FleetStore) -> bool:
        put(store, SHARED, message("a"))
        return bool(Process(store).ask()[3])

    def test_nobody_wants_anything(self, store: FleetStore) -> None:
        assert not self.flag(store)

    def test_something_is_cancelled(self, store: FleetStore) -> None:
        store.client.zadd(store.keys.cancelled(), {"another": 9e9})
        assert self.flag(store)

    def test_some_task_is_paused(self, store: FleetStore) -> None:
        store.client.sadd(store.keys.paused_tasks(), "shop.mail")
        assert self.flag(store)

    def test_a_paused_queue_is_no_business_of_the_gate(self, store: FleetStore) -> None:
        store.client.sadd(store.keys.paused_queues(), "mail")
        assert not self.flag(store)


def test_every_list_has_its_queue_and_the_name_that_pauses_it(store: FleetStore) -> None:
    keys, arguments = keys_and_arguments(store, "w1", 7, "w1|7|1", [OWN, SHARED, "mail"])
    lists, names = keys[10:], arguments[9:]
    assert arguments[:2] == [7, "w1|7|1"]
    assert [*zip(lists, names[::2], names[1::2], strict=True)][:4] == [
        (OWN, OWN, SHARED),
        (SHARED, SHARED, SHARED),
        ("mail", "mail", "mail"),
        (f"{OWN}\x06\x163", OWN, SHARED),
    ]
    assert len(lists) == 3 * len(store.wire.steps)
    assert json.dumps(arguments)  # plain values
