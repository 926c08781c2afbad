"""Publishing for a free slot: as many as find one, the rest to the shared queue, each once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from nxs_tasks.errors import BrokerError
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.publisher import Room
from tests.integration.holding import Process
from tests.integration.messages import OWN, SHARED, contents, message, put, task_ids

TTL_S = 600
SLOTS = 4


def room_of(process: Process, limit: int | None = SLOTS, cost: int = 1) -> Room:
    """Of the own queue of an instance, as submitters tell it."""
    store, instance, epoch = process.store, process.instance, process.epoch
    own = store.keys.own_queue(instance)
    parts = (
        instance,
        store.keys.instance(instance),
        str(epoch),
        store.wire.prefix + store.keys.inflight(instance, epoch),
        "" if limit is None else str(limit),
        str(cost),
        json.dumps(own),
        json.dumps(SHARED),
        *store.wire.queue_keys(own),
    )
    return Room(SHARED, store.keys.waiting(), parts)


def place(
    store: FleetStore,
    number: int,
    lists: Mapping[str, Sequence[str]],
    rooms: Mapping[str, Room],
    producer: str = "p1",
) -> int:
    """One write: one more than what found no slot, 0 if it had been accepted before."""
    keys, said = [store.keys.producer(producer), store.keys.waiting()], []
    for key, messages in lists.items():
        room = rooms.get(key)
        keys += [key, room.other if room else key]
        parts = room.parts if room else ()
        said += [len(messages), len(parts), *parts, *messages]
    return int(store.call("place", keys, [number, TTL_S, *said]))


def some(count: int, first: str = "t") -> list[str]:
    return [message(f"{first}{n}") for n in range(count)]


@pytest.fixture
def w1(store: FleetStore) -> Process:
    return Process(store, slots=SLOTS, state=State.ACTIVE)


def test_what_finds_a_slot_is_placed(store: FleetStore, w1: Process) -> None:
    assert place(store, 1, {OWN: some(SLOTS)}, {OWN: room_of(w1)}) == 1
    assert task_ids(store, OWN) == ["t0", "t1", "t2", "t3"]
    assert contents(store, SHARED) == []


def test_what_finds_none_goes_to_the_shared_queue_in_order(store: FleetStore, w1: Process) -> None:
    put(store, SHARED, message("waits", SHARED))
    assert place(store, 1, {OWN: some(SLOTS + 3)}, {OWN: room_of(w1)}) == 4
    assert task_ids(store, OWN) == ["t0", "t1", "t2", "t3"]
    assert task_ids(store, SHARED) == ["waits", "t4", "t5", "t6"]


def test_the_one_that_comes_second_finds_the_slot_taken(store: FleetStore, w1: Process) -> None:
    room = {OWN: room_of(w1, limit=1)}
    assert place(store, 1, {OWN: some(1, "a")}, room, "p1") == 1
    assert place(store, 1, {OWN: some(1, "b")}, room, "p2") == 2
    assert (task_ids(store, OWN), task_ids(store, SHARED)) == (["a0"], ["b0"])


def test_what_is_held_takes_a_slot(store: FleetStore, w1: Process) -> None:
    put(store, OWN, *some(3, "held"))
    w1.take_all()
    assert place(store, 1, {OWN: some(2)}, {OWN: room_of(w1)}) == 2
    assert (task_ids(store, OWN), task_ids(store, SHARED)) == (["t0"], ["t1"])


def test_what_waits_with_another_priority_takes_a_slot(store: FleetStore, w1: Process) -> None:
    put(store, OWN, message("less urgent", priority=9), priority=9)
    assert place(store, 1, {OWN: some(SLOTS)}, {OWN: room_of(w1)}) == 2
    assert task_ids(store, OWN) == ["t0", "t1", "t2", "less urgent"]


def test_a_priority_keeps_its_list(store: FleetStore, w1: Process) -> None:
    own, shared = store.wire.queue_keys(OWN)[1], store.wire.queue_keys(SHARED)[1]
    room = room_of(w1, limit=1)._replace(other=shared)
    assert place(store, 1, {own: some(2)}, {own: room}) == 2
    assert store.client.llen(own) == store.client.llen(shared) == 1


def test_a_message_says_the_queue_that_it_went_to(store: FleetStore, w1: Process) -> None:
    decoy = message("t0", headers={"routing_key": OWN}, shadow=OWN)
    place(store, 1, {OWN: [decoy]}, {OWN: room_of(w1, limit=0)})
    [raw] = contents(store, SHARED)
    expected = json.loads(decoy)
    expected["properties"]["delivery_info"]["routing_key"] = SHARED
    assert json.loads(raw) == expected


def test_a_message_that_says_no_queue_goes_as_it_is(store: FleetStore, w1: Process) -> None:
    place(store, 1, {OWN: ["no message"]}, {OWN: room_of(w1, limit=0)})
    assert contents(store, SHARED) == [b"no message"]


@pytest.mark.parametrize("what", ["another epoch", "leaving", "no record"])
def test_an_instance_that_is_not_the_one_that_was_seen_has_no_room(
    store: FleetStore, w1: Process, what: str
) -> None:
    room = room_of(w1)
    if what == "another epoch":
        Process(store, slots=SLOTS, state=State.ACTIVE)
    elif what == "leaving":
        store.transition(
            Transition(
                instance="w1",
                epoch=w1.epoch,
                source=State.ACTIVE,
                target=State.LEAVING,
                event=Event.SHUTDOWN,
                reason="test",
            )
        )
    else:
        store.client.delete(store.keys.instance("w1"))
    assert place(store, 1, {OWN: some(2)}, {OWN: room}) == 3
    assert (contents(store, OWN), task_ids(store, SHARED)) == ([], ["t0", "t1"])


def test_without_a_limit_all_find_room_whatever_became_of_the_instance(
    store: FleetStore, w1: Process
) -> None:
    store.client.delete(store.keys.instance("w1"))
    assert place(store, 1, {OWN: some(9)}, {OWN: room_of(w1, limit=None)}) == 1
    assert len(contents(store, OWN)) == 9


def test_the_length_of_the_line_is_known_at_once(store: FleetStore, w1: Process) -> None:
    waiting = store.keys.waiting()
    place(store, 1, {OWN: some(3)}, {OWN: room_of(w1)})
    assert store.client.zscore(waiting, "w1") == 3
    place(store, 2, {OWN: some(3)}, {OWN: room_of(w1)})
    assert store.client.zscore(waiting, "w1") == 4
    for left in (3, 2, 1, None):
        w1.take()
        assert store.client.zscore(waiting, "w1") == left


def test_the_same_write_again_changes_nothing(store: FleetStore, w1: Process) -> None:
    write, rooms = {OWN: some(SLOTS + 1), "mail": some(2, "mail")}, {OWN: room_of(w1)}
    assert place(store, 1, write, rooms) == 2
    w1.take_all(OWN)
    assert place(store, 1, write, rooms) == 0
    assert (contents(store, OWN), task_ids(store, SHARED)) == ([], ["t4"])
    assert task_ids(store, "mail") == ["mail0", "mail1"]


@pytest.mark.parametrize("count", [0, 1000, 2500])
def test_however_many(store: FleetStore, w1: Process, count: int) -> None:
    limit = count // 2
    place(store, 1, {OWN: some(count)}, {OWN: room_of(w1, limit=limit)})
    assert task_ids(store, OWN) == [f"t{n}" for n in range(limit)]
    assert task_ids(store, SHARED) == [f"t{n}" for n in range(limit, count)]


@pytest.mark.parametrize(("cost", "here"), [(1, 4), (2, 2), (3, 1), (5, 0)])
def test_what_takes_several_slots_finds_room_for_fewer(
    store: FleetStore, w1: Process, cost: int, here: int
) -> None:
    assert place(store, 1, {OWN: some(4)}, {OWN: room_of(w1, cost=cost)}) == 5 - here
    assert len(task_ids(store, OWN)) == here


@pytest.mark.parametrize("key", [OWN, SHARED, "inflight", "record", "waiting", "lower priority"])
def test_nothing_is_written_if_a_key_is_of_the_wrong_kind(
    store: FleetStore, w1: Process, key: str
) -> None:
    known = {
        "inflight": store.wire.prefix + store.keys.inflight("w1", w1.epoch),
        "record": store.keys.instance("w1"),
        "waiting": store.keys.waiting(),
        "lower priority": store.wire.queue_keys(OWN)[2],
    }
    key = known.get(key, key)
    before = store.client.dump(key)
    store.client.set(key, "text")
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        place(store, 1, {"mail": some(1), OWN: some(1)}, {OWN: room_of(w1)})
    assert contents(store, "mail") == []
    store.client.delete(key)
    if before is not None:
        store.client.restore(key, 0, before)
    assert place(store, 1, {"mail": some(1), OWN: some(1)}, {OWN: room_of(w1)}) == 1
