"""Publishing: every message once and in its order, however often the write is sent."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest

from nxs_tasks.errors import BrokerError
from nxs_tasks.store import FleetStore
from tests.integration.holding import Process, ids
from tests.integration.messages import SHARED, contents, message, put, task_ids

TTL_S = 600


def publish(
    store: FleetStore,
    number: int,
    lists: Mapping[str, Sequence[str]],
    producer: str = "p1",
    ttl_s: int = TTL_S,
) -> bool:
    """One write; True if it took effect now."""
    keys = [store.keys.producer(producer), *lists]
    parts = itertools.chain.from_iterable((len(raws), *raws) for raws in lists.values())
    return bool(store.call("publish", keys, [number, ttl_s, *parts]))


def test_what_is_published_first_is_taken_first(store: FleetStore) -> None:
    put(store, SHARED, message("waits"))
    assert publish(store, 1, {SHARED: [message("a"), message("b")]})
    assert publish(store, 2, {SHARED: [message("c")]})
    assert ids(Process(store).take_all()) == ["waits", "a", "b", "c"]


def test_the_same_write_again_changes_nothing(store: FleetStore) -> None:
    write = {SHARED: [message("a")], "mail": [message("b")]}
    assert publish(store, 1, write)
    for _ in range(3):
        assert not publish(store, 1, write)
    assert (task_ids(store, SHARED), task_ids(store, "mail")) == (["a"], ["b"])


def test_also_after_its_messages_were_taken(store: FleetStore) -> None:
    publish(store, 1, {SHARED: [message("a")]})
    Process(store).take()
    assert not publish(store, 1, {SHARED: [message("a")]})
    assert contents(store, SHARED) == []


def test_an_older_write_comes_too_late(store: FleetStore) -> None:
    assert publish(store, 7, {SHARED: [message("a")]})
    assert not publish(store, 6, {SHARED: [message("b")]})
    assert publish(store, 8, {SHARED: [message("c")]})
    assert task_ids(store, SHARED) == ["a", "c"]


def test_numbers_are_no_texts(store: FleetStore) -> None:
    assert [publish(store, n, {SHARED: ["x"]}) for n in (9, 10, 9, 100, 11)] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_each_producer_counts_by_itself(store: FleetStore) -> None:
    for producer in ("p1", "p2", "p1"):
        publish(store, 1, {SHARED: [message(producer)]}, producer)
    assert task_ids(store, SHARED) == ["p1", "p2"]


def test_a_repetition_is_known_for_as_long_as_it_says(store: FleetStore) -> None:
    publish(store, 1, {SHARED: ["x"]}, ttl_s=50)
    key = store.keys.producer("p1")
    assert 0 < store.client.ttl(key) <= 50
    publish(store, 2, {SHARED: ["x"]}, ttl_s=100)
    assert 50 < store.client.ttl(key) <= 100
    assert store.client.get(key) == "2"


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500, 9000])
def test_however_many(store: FleetStore, count: int) -> None:
    names = [f"t{n}" for n in range(count)]
    lists = {SHARED: [message(name) for name in names], "mail": [message("behind")]}
    assert publish(store, 1, lists)
    assert task_ids(store, SHARED) == names
    assert task_ids(store, "mail") == ["behind"]


def test_a_list_with_nothing_between_two_others(store: FleetStore) -> None:
    assert publish(store, 1, {SHARED: [message("a")], "mail": [], "video": [message("b")]})
    assert (task_ids(store, SHARED), task_ids(store, "video")) == (["a"], ["b"])
    assert not store.client.exists("mail")


def test_messages_are_written_byte_by_byte(store: FleetStore) -> None:
    raws = [b"", b"\xff\x00", b"5", b"2\n3"]
    publish(store, 1, {SHARED: [raw.decode("utf-8", "surrogateescape") for raw in raws]})
    assert contents(store, SHARED) == raws


def test_a_write_that_fails_can_be_sent_again(store: FleetStore) -> None:
    store.client.set("no list", "")
    write = {SHARED: [message("a")], "no list": [message("b")]}
    with pytest.raises(BrokerError):
        publish(store, 1, write)
    assert contents(store, SHARED) == [], "half a write could neither be repeated nor left"
    store.client.delete("no list")
    assert publish(store, 1, write)
    assert task_ids(store, SHARED) == ["a"]
