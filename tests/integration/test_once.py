"""The scripts around `publish`: a write of unknown end, and unique keys."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.errors import BrokerError
from nxs_tasks.store import FleetStore
from nxs_tasks.store.unique import UniqueKeys

P = "producer-1"


def publish(store: FleetStore, number: int, lists: dict[str, list[str]], producer: str = P) -> int:
    arguments: list[Any] = [number, 60]
    for messages in lists.values():
        arguments += [len(messages), *messages]
    return int(store.call("publish", [store.keys.producer(producer), *lists], arguments))


def publish_unique(store: FleetStore, number: int, task_id: str, producer: str = P) -> str:
    keys = [store.keys.producer(producer), store.keys.unique("nightly"), "celery"]
    arguments = [number, 60, task_id, f"message of {task_id}", 0]
    return str(store.call("publish_unique", keys, arguments))


def void(store: FleetStore, number: int, producer: str = P) -> int:
    return int(store.call("void", [store.keys.producer(producer)], [number, 60]))


def waiting(store: FleetStore, key: str = "celery") -> list[str]:
    """First to be taken first."""
    found: Any = store.client.lrange(key, 0, -1)
    return list(reversed(found))


def test_of_several_lists_all_are_written_or_none(store: FleetStore) -> None:
    store.client.set("no-list", "x")
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        publish(store, 1, {"celery": ["a"], "no-list": ["b"]})
    assert waiting(store) == []
    store.client.delete("no-list")
    assert publish(store, 1, {"celery": ["a"], "no-list": ["b"]}) == 1


class TestVoid:
    def test_a_write_that_came_was_accepted(self, store: FleetStore) -> None:
        publish(store, 1, {"celery": ["a"]})
        assert [void(store, 1), void(store, 1)] == [0, 0]

    def test_a_write_that_did_not_come_never_will(self, store: FleetStore) -> None:
        publish(store, 1, {"celery": ["a"]})
        assert [void(store, 2), void(store, 2)] == [1, 1]
        assert publish(store, 2, {"celery": ["b"]}) == 0
        assert publish_unique(store, 2, "t-1") == "t-1"
        assert [waiting(store), void(store, 2)] == [["a"], 1]
        assert UniqueKeys(store).owner("nightly") == ""

    def test_it_is_forgotten_in_the_end(self, store: FleetStore) -> None:
        void(store, 1)
        assert 0 < int(store.client.ttl(store.keys.producer(P))) <= 60


class TestUnique:
    def test_the_first_one_has_the_key(self, store: FleetStore) -> None:
        assert publish_unique(store, 1, "t-1") == "t-1"
        assert publish_unique(store, 1, "t-2", producer="producer-2") == "t-1"
        assert waiting(store) == ["message of t-1"]
        assert dict(UniqueKeys(store).taken()) == {"nightly": "t-1"}

    def test_the_same_write_again_changes_nothing(self, store: FleetStore) -> None:
        for _ in range(2):
            assert publish_unique(store, 1, "t-1") == "t-1"
        assert waiting(store) == ["message of t-1"]

    def test_not_even_when_another_task_has_the_key_meanwhile(self, store: FleetStore) -> None:
        publish_unique(store, 1, "t-1")
        UniqueKeys(store).release("nightly", "t-1")
        publish_unique(store, 1, "t-2", producer="producer-2")
        assert publish_unique(store, 1, "t-1") == "t-1"
        assert UniqueKeys(store).owner("nightly") == "t-2"
        assert waiting(store) == ["message of t-1", "message of t-2"]

    def test_the_same_task_from_another_producer_is_there_already(self, store: FleetStore) -> None:
        publish_unique(store, 1, "t-1")
        assert publish_unique(store, 1, "t-1", producer="producer-2") == "t-1"
        assert waiting(store) == ["message of t-1"]

    def test_a_key_whose_list_is_none_is_not_taken(self, store: FleetStore) -> None:
        store.client.set("celery", "x")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            publish_unique(store, 1, "t-1")
        assert UniqueKeys(store).owner("nightly") == ""

    def test_only_its_task_frees_it(self, store: FleetStore) -> None:
        publish_unique(store, 1, "t-1")
        keys = UniqueKeys(store)
        assert not keys.release("nightly", "t-2")
        assert keys.owner("nightly") == "t-1"
        assert keys.release("nightly", "t-1")
        assert (keys.owner("nightly"), keys.release("nightly", "t-1")) == ("", False)
        assert publish_unique(store, 1, "t-3", producer="producer-2") == "t-3"


def test_lists_expire_anew(store: FleetStore) -> None:
    store.client.rpush("celery", "x")
    assert store.call("expire", ["celery", "none"], [60_000]) == 1
    assert 0 < int(store.client.pttl("celery")) <= 60_000
