"""What processes hold: acknowledged once, moved whole, by who may."""

from __future__ import annotations

import pytest

from nxs_tasks.errors import BrokerError, Stale
from nxs_tasks.model.shelf import PARKED
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.inflight import Move, Returned
from nxs_tasks.store.shelves import Shelves
from tests.integration.holding import Process, a_holder, an_entry, holders, rescue
from tests.integration.messages import SHARED, contents, message, put, task_ids

LIVING = [s for s in State if s not in ENDED]


class TestAcknowledge:
    def test_it_drops_the_message_and_no_other(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b")
        first, second = sorted(process.tokens())
        assert process.acknowledge(first)
        assert process.tokens() == [second]
        assert store.client.zrange(process.index, 0, -1) == [second]
        assert process.held_ids() == ["b"]

    def test_once(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        [token] = process.tokens()
        assert process.acknowledge(token)
        assert not process.acknowledge(token)
        assert not store.client.exists(process.hash, process.index)

    def test_a_token_that_is_not_held_changes_nothing(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        assert not process.acknowledge("w1|1|99")
        assert process.held_ids() == ["a"]

    def test_what_was_taken_from_its_holder_is_not_the_old_holder_s_to_drop(
        self, store: FleetStore
    ) -> None:
        process = a_holder(store, "a")
        [token] = process.tokens()
        successor = process.loses_its_name()
        rescue(process)
        assert successor.take() != token
        assert not process.acknowledge(token)
        assert successor.held_ids() == ["a"]

    def test_until_it_is_rescued_a_process_that_was_given_up_may_acknowledge(
        self, store: FleetStore
    ) -> None:
        """Nobody else has been given it, so there is one execution."""
        process = a_holder(store, "a")
        process.is_now(State.GONE)
        [token] = process.tokens()
        assert process.acknowledge(token)
        assert rescue(process) == Returned(0, 0)

    def test_the_lock_of_its_unique_key_is_freed(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        store.client.set(store.keys.unique("order 7"), "a")
        [token] = process.tokens()
        assert process.acknowledge(token, unique_key="order 7", task_id="a")
        assert not store.client.exists(store.keys.unique("order 7"))

    def test_a_lock_that_another_task_has_is_not(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        store.client.set(store.keys.unique("order 7"), "b")
        [token] = process.tokens()
        assert process.acknowledge(token, unique_key="order 7", task_id="a")
        assert store.client.get(store.keys.unique("order 7")) == "b"

    def test_a_lock_is_not_freed_by_who_does_not_hold_the_message(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        store.client.set(store.keys.unique("order 7"), "a")
        [token] = process.tokens()
        process.loses_its_name()
        rescue(process)
        assert not process.acknowledge(token, unique_key="order 7", task_id="a")
        assert store.client.get(store.keys.unique("order 7")) == "a"

    def test_a_task_that_keeps_its_key_keeps_its_lock(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        store.client.set(store.keys.unique("order 7"), "a")
        [token] = process.tokens()
        assert process.acknowledge(token, task_id="a")
        assert store.client.get(store.keys.unique("order 7")) == "a"


class TestRelocate:
    def move(self, process: Process, *moves: Move, dead: bool = False) -> int:
        return process.inflight.relocate(process.instance, process.epoch, moves, dead=dead)

    def test_to_a_list_to_be_taken_next(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b", "c")
        put(store, "mail", message("waits"))
        a, b, c = sorted(process.tokens())
        moves = [Move(token, "mail", message(name)) for token, name in ((c, "c"), (a, "a"))]
        assert self.move(process, *moves) == 2
        assert task_ids(store, "mail") == ["a", "c", "waits"]
        assert process.tokens() == [b]
        assert store.client.zrange(process.index, 0, -1) == [b]

    def test_to_the_end_of_a_list(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        put(store, "mail", message("waits"))
        [token] = process.tokens()
        assert self.move(process, Move(token, "mail", message("a"), back=True)) == 1
        assert task_ids(store, "mail") == ["waits", "a"]

    def test_to_a_shelf(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        [token] = process.tokens()
        entry = an_entry(token, "any\ntext", at=1234.5, list="mail", task="t", task_id="i")
        assert process.inflight.shelve("w1", process.epoch, token, PARKED, entry)
        assert list(Shelves(store).entries(PARKED)) == [entry]
        assert process.tokens() == []

    def test_what_is_not_held_any_more_is_passed_over(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        [token] = process.tokens()
        moves = [Move("w1|1|99", "mail", "x"), Move(token, "mail", message("a"))]
        assert self.move(process, *moves) == 1
        assert self.move(process, *moves) == 0
        assert task_ids(store, "mail") == ["a"]
        entry = an_entry(token, "x")
        assert not process.inflight.shelve("w1", process.epoch, token, PARKED, entry)
        assert Shelves(store).count(PARKED) == 0

    @pytest.mark.parametrize("state", LIVING)
    def test_of_who_is_part_of_the_fleet_nothing_is_moved_as_of_the_dead(
        self, store: FleetStore, state: State
    ) -> None:
        process = a_holder(store, "a")
        process.is_now(state)
        [token] = process.tokens()
        with pytest.raises(Stale, match="w1 with epoch 1 is part of the fleet"):
            self.move(process, Move(token, "mail", message("a")), dead=True)
        assert (process.held_ids(), contents(store, "mail")) == (["a"], [])
        assert self.move(process, Move(token, "mail", message("a"))) == 1

    @pytest.mark.parametrize("end", ["GONE", "FAILED", "replaced", "forgotten"])
    def test_of_who_is_not_it_is(self, store: FleetStore, end: str) -> None:
        process = a_holder(store, "a")
        if end == "replaced":
            process.loses_its_name()
        elif end == "forgotten":
            process.is_forgotten()
        else:
            process.is_now(State(end))
        [token] = process.tokens()
        assert self.move(process, Move(token, "mail", message("a")), dead=True) == 1
        assert task_ids(store, "mail") == ["a"]

    def test_who_is_gone_and_holds_nothing_is_no_holder_any_more(self, store: FleetStore) -> None:
        process = a_holder(store, "a", "b")
        first, second = sorted(process.tokens())
        to = [Move(token, "mail", message("x")) for token in (first, second)]
        assert self.move(process, to[0]) == 1
        assert holders(store) == [("w1", 1, 1)]
        process.is_now(State.GONE)
        assert self.move(process, dead=True) == 0
        assert holders(store) == [("w1", 1, 1)], "it still holds one"
        store.client.zadd(process.index, {"w1|1|99": 1.0})
        assert self.move(process, to[1], dead=True) == 1
        assert holders(store) == []
        assert not store.client.exists(process.hash, process.index)

    def test_who_lives_and_holds_nothing_still_may(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        [token] = process.tokens()
        assert self.move(process, Move(token, "mail", message("a"))) == 1
        assert holders(store) == [("w1", 1, 0)]

    def test_its_successor_stays_a_holder(self, store: FleetStore) -> None:
        process = Process(store)
        process.loses_its_name()
        assert self.move(process, dead=True) == 0
        assert holders(store) == [("w1", 2, 0)]

    def test_the_lock_of_a_unique_key_is_freed_in_the_same_step(self, store: FleetStore) -> None:
        process, keys = a_holder(store, "a", "b"), store.keys
        tokens = sorted(process.tokens())
        for token, task_id in zip(tokens, ("a", "somebody else's"), strict=True):
            store.client.set(keys.unique(task_id), task_id)
            entry = an_entry(token, message("a"), task_id="a")
            process.inflight.shelve("w1", 1, token, PARKED, entry, unique_key=task_id)
        assert not store.client.exists(keys.unique("a"))
        assert store.client.exists(keys.unique("somebody else's"))

    def test_what_is_taken_already_frees_no_lock(self, store: FleetStore) -> None:
        process = a_holder(store, "a")
        store.client.set(store.keys.unique("k"), "a")
        entry = an_entry("w1|1|99", message("a"), task_id="a")
        assert not process.inflight.shelve("w1", 1, "w1|1|99", PARKED, entry, unique_key="k")
        assert store.client.exists(store.keys.unique("k"))

    def test_it_is_written_before_it_is_removed(self, store: FleetStore) -> None:
        """A script that fails half-way is not undone: here the target is no list."""
        process = a_holder(store, "a")
        store.client.set("mail", "no list")
        [token] = process.tokens()
        with pytest.raises(BrokerError):
            self.move(process, Move(token, "mail", message("a")))
        assert process.held_ids() == ["a"]
        store.client.set(store.keys.shelf(PARKED), "no hash")
        with pytest.raises(BrokerError):
            process.inflight.shelve("w1", 1, token, PARKED, an_entry(token, "a"))
        assert process.held_ids() == ["a"]


class TestHolders:
    def test_nobody(self, store: FleetStore) -> None:
        assert store.holders() == ()

    def test_all_processes_also_of_one_name_and_what_each_holds(self, store: FleetStore) -> None:
        first = a_holder(store, "a", "b", instance="a:1@host:2")
        second = first.loses_its_name()
        put(store, SHARED, message("c"))
        second.take()
        Process(store, "größe")
        assert holders(store) == [("a:1@host:2", 1, 2), ("a:1@host:2", 2, 1), ("größe", 1, 0)]
