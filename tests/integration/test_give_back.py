"""What is given back: in order, once, each loss counted, and what is poison put aside."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from nxs_tasks.errors import Stale
from nxs_tasks.model.record import LossRecord
from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore, Wire
from nxs_tasks.store.events import Events
from nxs_tasks.store.homes import homes
from nxs_tasks.store.inflight import BATCH, Inflight, Move, Returned
from nxs_tasks.store.message import LOST_HEADER, read
from nxs_tasks.store.shelves import Shelves
from tests.conftest import add_instance
from tests.integration.holding import AT, Process, a_holder, holders, rescue, to_shared
from tests.integration.messages import GARBAGE, OWN, SHARED, contents, message, put, task_ids


class TestGiveBack:
    def test_before_what_waits_and_oldest_first(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b", "c")
        put(store, SHARED, message("waits"))
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_queues=3)
        assert task_ids(store, SHARED) == ["a", "b", "c", "waits"]
        assert holders(store) == []

    def test_by_the_time_of_receipt_and_not_by_the_number(self, store: FleetStore) -> None:
        process = a_holder(store, *"abcdefghijkl")
        process.is_now(State.GONE)
        rescue(process)
        assert task_ids(store, SHARED) == [*"abcdefghijkl"]

    def test_to_the_end_of_the_line_in_the_same_order(self, store: FleetStore) -> None:
        names = [f"t{n}" for n in range(BATCH + 50)]
        process = a_holder(store, *names)
        put(store, SHARED, message("waits"))
        back = process.inflight.give_back("w1", 1, to_shared, last=True)
        assert back == Returned(to_queues=len(names))
        assert task_ids(store, SHARED) == ["waits", *names]

    def test_each_to_the_list_of_its_priority(self, store: FleetStore) -> None:
        for priority in store.wire.steps:
            put(store, "mail", message(f"p{priority}", priority=priority), priority=priority)
        process = Process(store)
        process.take_all("mail")
        process.is_now(State.GONE)
        assert rescue(process, home=lambda task, queue: queue).to_queues == 4
        for priority, key in zip(store.wire.steps, store.wire.queue_keys("mail"), strict=True):
            [raw] = store.client.lrange(key, 0, -1)
            assert json.loads(raw)["headers"]["id"] == f"p{priority}"

    def test_where_to_is_asked_for_each_by_task_and_queue(self, store: FleetStore) -> None:
        put(store, OWN, message("a", task="shop.pay"))
        put(store, "mail", message("b", task="shop.mail"))
        process = Process(store)
        process.take_all(OWN, "mail")
        process.is_now(State.GONE)
        asked = set()

        def home(task: str, queue: str) -> str:
            asked.add((task, queue))
            return f"to-{task}"

        rescue(process, home=home)
        assert asked == {("shop.pay", OWN), ("shop.mail", "mail")}
        [pay], [mail] = contents(store, "to-shop.pay"), contents(store, "to-shop.mail")
        assert json.loads(pay)["properties"]["delivery_info"]["routing_key"] == "to-shop.pay"
        assert json.loads(mail)["properties"]["delivery_info"]["routing_key"] == "to-shop.mail"

    def test_the_loss_is_counted_in_the_message(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        process.is_now(State.GONE)
        rescue(process)
        [raw] = contents(store, SHARED)
        envelope = read(raw.decode())
        assert envelope.lost == ({"instance": "w1", "epoch": 1, "at": AT},)
        assert envelope.redelivered

    def test_what_is_given_back_by_its_holder_is_no_loss(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        back = process.inflight.give_back("w1", 1, to_shared, lost_holders=1)
        assert back == Returned(to_queues=1)
        [raw] = contents(store, SHARED)
        assert (read(raw.decode()).lost, read(raw.decode()).redelivered) == ((), True)

    def test_only_some_of_what_it_holds(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b", "c")
        _, second, _ = sorted(process.tokens())
        tokens = [second, "w1|1|99"]
        back = process.inflight.give_back("w1", 1, to_shared, tokens=tokens)
        assert back == Returned(to_queues=1)
        assert (task_ids(store, SHARED), process.held_ids()) == (["b"], ["a", "c"])
        assert process.inflight.give_back("w1", 1, to_shared, tokens=[]) == Returned()

    @pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 2 * BATCH + 50])
    def test_however_many(self, store: FleetStore, count: int) -> None:
        names = [f"t{n}" for n in range(count)]
        process = a_holder(store, *names)
        put(store, SHARED, message("waits"))
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_queues=count)
        assert task_ids(store, SHARED) == [*names, "waits"]
        assert holders(store) == []

    def test_one_without_a_time_of_receipt_counts_as_the_oldest(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b", "c")
        store.client.zrem(process.index, sorted(process.tokens())[1])
        process.is_now(State.GONE)
        rescue(process)
        assert task_ids(store, SHARED) == ["b", "a", "c"]

    def test_what_a_stock_process_registered_is_given_back_too(self, store: FleetStore) -> None:
        process = Process(store)
        raw = json.loads(message("a", "mail", stamps=["x", "", "y"]))
        store.client.hset(process.hash, "a-tag", json.dumps([raw, "an exchange", "mail"]))
        process.is_now(State.GONE)
        assert rescue(process, home=lambda task, queue: queue) == Returned(to_queues=1)
        assert task_ids(store, "mail") == ["a"]

    def test_with_a_key_prefix(self, store: FleetStore) -> None:
        wire = Wire(prefix="shop:")
        prefixed = FleetStore(store.client, store.keys, wire, SHARED, store.url)
        process = a_holder(prefixed, "a")
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_queues=1)
        assert (task_ids(prefixed, SHARED), contents(store, SHARED)) == (["a"], [])
        assert not store.client.exists(process.hash, process.index)


class TestQuarantine:
    def entries(self, store: FleetStore) -> Any:
        return list(Shelves(store).entries(QUARANTINE))

    def test_what_has_lost_its_holder_too_often(self, store: FleetStore) -> None:
        put(store, "mail", message("poison", priority=6), priority=6)
        for n in (1, 2, 3):
            process = Process(store, f"w{n}")
            process.take("mail")
            process.is_now(State.GONE)
            back = rescue(process, home=lambda task, queue: queue, lost_at=AT + n)
            assert back == (Returned(to_queues=1) if n < 3 else Returned(to_quarantine=1))
        assert contents(store, "mail") == []
        [entry] = self.entries(store)
        assert (entry.at, entry.list) == (AT + 3, "mail\x06\x166")
        assert (entry.task_id, entry.task) == ("poison", "shop.pay")
        assert entry.reason == "lost its holder 3 times, last w3"
        assert [loss["instance"] for loss in read(entry.message).lost] == ["w1", "w2", "w3"]
        assert holders(store) == []

    @pytest.mark.parametrize(
        ("owner", "lost_holders", "left"), [("a", 1, None), ("a", 2, "a"), ("b", 1, "b")]
    )
    def test_its_unique_key_is_freed_and_that_of_another_is_not(
        self, store: FleetStore, owner: str, lost_holders: int, left: str | None
    ) -> None:
        put(store, SHARED, message("a", nxs_unique="order 7"))
        store.client.set(store.keys.unique("order 7"), owner)
        process = Process(store)
        process.take_all(SHARED)
        process.is_now(State.GONE)
        rescue(process, lost_holders=lost_holders)
        assert store.client.get(store.keys.unique("order 7")) == left

    @pytest.mark.parametrize(("lost_holders", "kept"), [(1, False), (2, True)])
    def test_how_often_is_given(self, store: FleetStore, lost_holders: int, kept: bool) -> None:
        process = a_holder(store, "a")
        process.is_now(State.GONE)
        back = rescue(process, lost_holders=lost_holders)
        assert back == Returned(int(kept), int(not kept))
        assert (task_ids(store, SHARED) == ["a"]) is kept

    def test_beside_one_the_others_go_back_in_their_order(self, store: FleetStore) -> None:
        twice: dict[str, Any] = {
            LOST_HEADER: [{"instance": "w9", "epoch": n, "at": AT} for n in (1, 2)]
        }
        put(store, SHARED, message("a"), message("poison", **twice), message("b"))
        process = Process(store)
        process.take_all()
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_queues=2, to_quarantine=1)
        assert task_ids(store, SHARED) == ["a", "b"]
        assert [e.task_id for e in self.entries(store)] == ["poison"]

    @pytest.mark.parametrize("raw", GARBAGE)
    def test_what_is_no_message_byte_by_byte(self, store: FleetStore, raw: bytes) -> None:
        put(store, "mail", raw)
        put(store, SHARED, message("a"))
        process = Process(store)
        process.take_all("mail", SHARED)
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_queues=1, to_quarantine=1)
        [entry] = self.entries(store)
        assert entry.message.encode("utf-8", "surrogateescape") == raw
        assert (entry.list, entry.task_id, entry.task) == ("mail", "", "")
        assert "not a message of kombu" in entry.reason
        assert Shelves(store).take(QUARANTINE, [entry], "front") == 1
        assert contents(store, "mail") == [raw]

    def test_what_nobody_has_wrapped(self, store: FleetStore) -> None:
        process = Process(store)
        store.client.hset(process.hash, "tag", "of another world")
        process.is_now(State.GONE)
        assert rescue(process) == Returned(to_quarantine=1)
        [entry] = self.entries(store)
        assert (entry.message, entry.list) == ("of another world", SHARED)

    def test_nothing_there_belongs_to_an_own_queue(self, store: FleetStore) -> None:
        """Its instance may be forgotten when a person gives it another try."""
        put(store, OWN, message("a"), "junk")
        process = Process(store)
        process.take_all()
        process.is_now(State.GONE)
        rescue(process, home=lambda task, queue: store.keys.own_queue("w2"), lost_holders=1)
        assert [e.list for e in self.entries(store)] == [SHARED, SHARED]
        [raw] = [e.message for e in self.entries(store) if e.task_id]
        assert json.loads(raw)["properties"]["delivery_info"]["routing_key"] == SHARED

    def test_what_a_living_process_gives_back_has_the_time_of_the_server(
        self, store: FleetStore
    ) -> None:
        put(store, SHARED, "junk")
        process = Process(store)
        process.take_all()
        process.inflight.give_back("w1", 1, to_shared)
        [entry] = self.entries(store)
        assert abs(entry.at - store.now()) < 60


class TestTwoAtOnce:
    def test_a_second_rescue_finds_nothing(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b")
        process.is_now(State.GONE)
        assert (rescue(process), rescue(process)) == (Returned(to_queues=2), Returned())
        assert task_ids(store, SHARED) == ["a", "b"]

    @pytest.mark.parametrize("lost_holders", [1, 3])
    def test_a_rescue_between_look_and_move_of_another(
        self, store: FleetStore, lost_holders: int
    ) -> None:
        class Late(Inflight):
            """Between its look and its move another has rescued all and given it away."""

            def relocate(self, instance: str, epoch: int, moves: Iterable[Move], **how: Any) -> int:
                if not firsts:
                    firsts.append(rescue(process, lost_holders=lost_holders))
                    other.take_all()
                return super().relocate(instance, epoch, moves, **how)

        firsts: list[Returned] = []
        process, other = a_holder(store, "a", "b"), Process(store, "w2")
        process.is_now(State.GONE)
        late = Late(store).give_back(
            "w1", 1, to_shared, lost_at=AT, lost_holders=lost_holders, dead=True
        )
        assert late == Returned()
        [first] = firsts
        assert first == (Returned(0, 2) if lost_holders == 1 else Returned(2, 0))
        became = "quarantine" if lost_holders == 1 else "given back"
        told = [r for r in Events(store).read().records if isinstance(r, LossRecord)]
        assert [(r.task_id, r.task, r.instance, r.epoch, r.at, r.became) for r in told] == [
            (name, "shop.pay", "w1", 1, AT, became) for name in ("b", "a")
        ], "each loss is told once"
        assert len(other.held_ids()) == first.to_queues
        assert Shelves(store).count(QUARANTINE) == first.to_quarantine
        assert contents(store, SHARED) == []

    def test_who_is_back_before_the_move_keeps_what_it_holds(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        process.is_now(State.ZOMBIE)
        with pytest.raises(Stale, match="w1 with epoch 1"):
            rescue(process)
        assert (process.held_ids(), contents(store, SHARED)) == (["a"], [])
        assert holders(store) == [("w1", 1, 1)]

    def test_what_a_task_ended_meanwhile_is_not_given_back(self, store: FleetStore) -> None:
        class Ended(Inflight):
            def relocate(self, instance: str, epoch: int, moves: Iterable[Move], **how: Any) -> int:
                process.acknowledge(first)
                return super().relocate(instance, epoch, moves, **how)

        process = a_holder(store, "a", "b")
        first, _ = sorted(process.tokens())
        process.is_now(State.GONE)
        back = Ended(store).give_back("w1", 1, to_shared, lost_at=AT, lost_holders=3, dead=True)
        assert back == Returned(to_queues=1)
        assert task_ids(store, SHARED) == ["b"]


class TestHomes:
    def test_a_queue_of_the_user_stays_and_others_go_where_the_task_is_known(
        self, store: FleetStore
    ) -> None:
        add_instance(store, "w1", tasks=("shop.pay",))
        where = homes(store)
        assert where("shop.pay", "mail") == "mail"
        assert (
            where("shop.pay", SHARED) == where("shop.pay", OWN) == where("shop.pay", "") == SHARED
        )
        add_instance(store, "w2", tasks=("shop.mail",))
        assert where("shop.pay", SHARED) == SHARED, "as it was when it looked"
        where = homes(store)
        assert where("shop.pay", SHARED) == where("shop.pay", "nxs.default/w9") == OWN
        assert where("shop.mail", SHARED) == "nxs.default/w2"
        assert where("unknown to all", OWN) == SHARED, "who takes it parks it"
        assert where("shop.pay", "nxs.other/w1") == "nxs.other/w1", "another fleet's"
