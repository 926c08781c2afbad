"""Shelves: what is put there comes back as it was, in order, once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nxs_tasks.errors import BrokerError
from nxs_tasks.model.shelf import DELAYED, PARKED, SHELVES, Shelved
from nxs_tasks.store import FleetStore, Wire
from nxs_tasks.store.shelves import PAGE, Shelves, Where, entry_text
from tests.integration.holding import an_entry, ids
from tests.integration.messages import GARBAGE, SHARED, contents, message, put, task_ids


def shelve(store: FleetStore, *entries: Shelved, shelf: str = PARKED) -> list[Shelved]:
    """As the script lays them down."""
    for entry in entries:
        store.client.hset(store.keys.shelf(shelf), entry.id, entry_text(entry))
        store.client.zadd(store.keys.shelf_index(shelf), {entry.id: entry.at})
    return list(entries)


def some(*names: str, **known: object) -> list[Shelved]:
    """Entries with the ids e-NAME, one a second."""
    return [
        an_entry(f"e-{name}", message(name), at=1000.5 + n, task_id=name, task="shop.pay", **known)
        for n, name in enumerate(names)
    ]


def remaining(store: FleetStore, shelf: str = PARKED) -> list[str]:
    """Ids in the hash and in the index, which must be the same."""
    in_hash = sorted(map(str, store.client.hkeys(store.keys.shelf(shelf))))
    assert in_hash == sorted(map(str, store.client.zrange(store.keys.shelf_index(shelf), 0, -1)))
    return in_hash


class TestLooking:
    def test_an_empty_shelf(self, store: FleetStore) -> None:
        shelves = Shelves(store)
        for shelf in SHELVES:
            assert shelves.count(shelf) == 0
            assert shelves.first_at(shelf) is None
            assert list(shelves.entries(shelf)) == list(shelves.scan(shelf)) == []

    def test_entries_come_as_they_were_and_by_their_time(self, store: FleetStore) -> None:
        a, b, c = some("a", "b", "c", list="mail\x06\x163", reason='"why", \n twice')
        shelve(store, c, a, b)
        shelves = Shelves(store)
        assert list(shelves.entries(PARKED)) == [a, b, c]
        assert shelves.count(PARKED) == 3
        assert shelves.first_at(PARKED) == a.at
        assert shelves.count(DELAYED) == 0
        found = sorted(shelves.scan(PARKED), key=lambda e: e.id)
        assert found == [replace(e, at=0.0) for e in (a, b, c)]

    @pytest.mark.parametrize("raw", [*GARBAGE, b"two\nlines\n", b"\n"])
    def test_a_message_is_kept_byte_by_byte(self, store: FleetStore, raw: bytes) -> None:
        text = raw.decode("utf-8", "surrogateescape")
        shelve(store, an_entry("e", text))
        [found] = Shelves(store).entries(PARKED)
        assert found.message.encode("utf-8", "surrogateescape") == raw
        Shelves(store).take(PARKED, [found], "back")
        assert contents(store, SHARED) == [raw]

    def test_more_than_a_page(self, store: FleetStore) -> None:
        entries = some(*(f"t{n:04}" for n in range(2 * PAGE + 10)))
        shelve(store, *entries)
        assert [e.id for e in Shelves(store).entries(PARKED)] == [e.id for e in entries]
        assert len(list(Shelves(store).scan(PARKED))) == len(entries)

    def test_it_is_found_by_task_and_by_entry(self, store: FleetStore) -> None:
        a, b, again = *some("a", "b"), replace(*some("a"), id="e-again", at=2000.0)
        shelve(store, a, b, again)
        shelves = Shelves(store)
        assert shelves.find(PARKED, "a") == [a, again]
        assert shelves.find(PARKED, "e-b") == [b]
        assert shelves.find(PARKED, "x") == []

    @pytest.mark.parametrize("text", ["", "no line", "{\nx", "[]\nx", "null\nx", "5\nx"])
    def test_an_entry_that_cannot_be_read_says_so_and_hides_no_other(
        self, store: FleetStore, text: str
    ) -> None:
        [good] = shelve(store, *some("a"))
        store.client.hset(store.keys.shelf(PARKED), "odd", text)
        store.client.zadd(store.keys.shelf_index(PARKED), {"odd": 1.0})
        odd, found = Shelves(store).entries(PARKED)
        assert found == good
        assert (odd.id, odd.list, odd.reason) == ("odd", "", "its entry cannot be read")

    def test_an_index_without_its_entry_is_shown_as_empty(self, store: FleetStore) -> None:
        store.client.zadd(store.keys.shelf_index(PARKED), {"nobody": 1.0})
        [found] = Shelves(store).entries(PARKED)
        assert (found.id, found.list, found.message) == ("nobody", "", "")


class TestTaking:
    def test_to_be_taken_next_in_their_order(self, store: FleetStore) -> None:
        put(store, SHARED, message("waits"))
        entries = shelve(store, *some("a", "b", "c"))
        assert Shelves(store).take(PARKED, entries, "front") == 3
        assert task_ids(store, SHARED) == ["a", "b", "c", "waits"]
        assert remaining(store) == []

    def test_at_the_end_of_the_line_in_their_order(self, store: FleetStore) -> None:
        put(store, SHARED, message("waits"))
        entries = shelve(store, *some("a", "b", "c"))
        assert Shelves(store).take(PARKED, entries, "back") == 3
        assert task_ids(store, SHARED) == ["waits", "a", "b", "c"]
        assert remaining(store) == []

    @pytest.mark.parametrize("where", ["front", "back"])
    def test_more_than_a_page_in_their_order(self, store: FleetStore, where: Where) -> None:
        names = [f"t{n:04}" for n in range(2 * PAGE + 10)]
        entries = shelve(store, *some(*names))
        assert Shelves(store).take(PARKED, entries, where) == len(names)
        assert task_ids(store, SHARED) == names

    def test_for_good(self, store: FleetStore) -> None:
        entries = shelve(store, *some("a", "b"))
        assert Shelves(store).take(PARKED, entries[:1], "drop") == 1
        assert (contents(store, SHARED), remaining(store)) == ([], ["e-b"])

    @pytest.mark.parametrize("where", ["front", "back", "drop"])
    def test_once(self, store: FleetStore, where: Where) -> None:
        entries = shelve(store, *some("a", "b"))
        shelves = Shelves(store)
        assert shelves.take(PARKED, entries[:1], where) == 1
        assert shelves.take(PARKED, entries, where) == 1
        assert shelves.take(PARKED, entries, where) == 0
        assert len(contents(store, SHARED)) == (0 if where == "drop" else 2)

    def test_each_to_its_own_list(self, store: FleetStore) -> None:
        entries = [*some("a", list="mail"), *some("b", list="celery\x06\x166")]
        shelve(store, *entries)
        Shelves(store).take(PARKED, entries, "front")
        assert task_ids(store, "mail") == ["a"]
        assert ids(map(str, store.client.lrange("celery\x06\x166", 0, -1))) == ["b"]

    def test_to_another_queue_in_its_priority(self, store: FleetStore) -> None:
        raw = message("a", priority=6)
        [entry] = shelve(store, an_entry("e", raw, list="celery\x06\x166"))
        Shelves(store).take(PARKED, [entry], "front", queue="mail")
        assert store.client.lrange("mail\x06\x166", 0, -1) == [raw]

    def test_with_another_text(self, store: FleetStore) -> None:
        [entry] = shelve(store, *some("a"))
        Shelves(store).take(PARKED, [replace(entry, message=message("new"))], "front")
        assert task_ids(store, SHARED) == ["new"]

    def test_what_is_no_message_to_another_queue(self, store: FleetStore) -> None:
        [entry] = shelve(store, an_entry("e", "junk", list="celery\x06\x166"))
        Shelves(store).take(PARKED, [entry], "front", queue="mail")
        assert store.client.lrange("mail", 0, -1) == ["junk"]

    @pytest.mark.parametrize(
        ("text", "written"), [("", ""), ("no line", "no line"), ("{\nx", "x"), ("5\n", "")]
    )
    @pytest.mark.parametrize("where", ["front", "back", "drop"])
    def test_an_entry_that_cannot_be_read_does_not_hold_up_the_others(
        self, store: FleetStore, where: Where, text: str, written: str
    ) -> None:
        shelve(store, *some("a"))
        store.client.hset(store.keys.shelf(PARKED), "odd", text)
        store.client.zadd(store.keys.shelf_index(PARKED), {"odd": 1.0})
        shelves = Shelves(store)
        assert shelves.take(PARKED, shelves.entries(PARKED), where) == 2
        assert remaining(store) == []
        expected = [] if where == "drop" else [written.encode(), message("a").encode()]
        assert contents(store, SHARED) == expected

    def test_from_one_shelf_and_no_other(self, store: FleetStore) -> None:
        entries = shelve(store, *some("a"))
        shelve(store, *some("a"), shelf=DELAYED)
        assert Shelves(store).take(PARKED, entries, "front") == 1
        assert remaining(store, DELAYED) == ["e-a"]

    def test_nothing(self, store: FleetStore) -> None:
        assert Shelves(store).take(PARKED, [], "front") == 0

    def test_with_a_key_prefix(self, store: FleetStore) -> None:
        prefixed = FleetStore(store.client, store.keys, Wire(prefix="shop:"), SHARED, store.url)
        [entry] = shelve(prefixed, *some("a", list="shop:mail"))
        Shelves(prefixed).take(PARKED, [entry], "front")
        assert task_ids(prefixed, "mail") == ["a"]

    def test_it_is_written_before_it_is_removed(self, store: FleetStore) -> None:
        """A script that fails half-way is not undone: here the target is no list."""
        entries = shelve(store, *some("a", list="no list"))
        store.client.set("no list", "")
        with pytest.raises(BrokerError):
            Shelves(store).take(PARKED, entries, "front")
        assert remaining(store) == ["e-a"]
