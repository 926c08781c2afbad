"""A run of the schedule is written once, by who leads, and counted in the same step."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from nxs_tasks.model.lead import Run
from nxs_tasks.store import FleetStore, scripts
from nxs_tasks.store.leases import BeatLease, as_text
from nxs_tasks.store.tick import AnotherRun, NotLeading, Tick, ticked, was_sent
from tests.integration.messages import SHARED, message, task_ids

FIRST, SECOND = Run(at=100.0, count=1, term=1, task_id="a"), Run(at=200.0, count=2, term=1)


@pytest.fixture
def lease(store: FleetStore) -> BeatLease:
    found = BeatLease(store, "shop", "us", 60.0)
    found.acquire()
    return found


def write(store: FleetStore, tick: Tick, name: str, number: int = 1, queue: str = SHARED) -> Any:
    """As a line does it."""
    keys = [store.keys.producer("p1"), queue, *tick.keys]
    arguments: list[Any] = [number, 600, 1, message(name), *tick.arguments]
    text = ticked(scripts.text("publish"))
    answer = store.client.eval(text, len(keys), *keys, *arguments)
    tick.refuse(answer)
    return answer


def test_a_run_is_written_and_counted(store: FleetStore, lease: BeatLease) -> None:
    assert write(store, lease.tick("often", "", FIRST), "a") == 1
    assert (task_ids(store, SHARED), lease.runs()) == (["a"], {"often": FIRST})
    assert write(store, lease.tick("often", as_text(FIRST), SECOND), "b", 2) == 1
    assert (task_ids(store, SHARED), lease.runs()) == (["a", "b"], {"often": SECOND})


def test_the_same_run_again_is_known(store: FleetStore, lease: BeatLease) -> None:
    """By whatever line, and also when its sender leads no more: its answer was lost."""
    tick = lease.tick("often", "", FIRST)
    write(store, tick, "a")
    assert was_sent(write(store, tick, "a"))
    lease.resign()
    assert was_sent(write(store, tick, "a", 7))
    assert task_ids(store, SHARED) == ["a"]


@pytest.mark.parametrize("gone", ["resigned", "ran out", "another", "a new term of its own"])
def test_who_does_not_lead_writes_nothing(store: FleetStore, lease: BeatLease, gone: str) -> None:
    tick = lease.tick("often", "", FIRST)
    store.client.delete(store.keys.beat_lease("shop"))
    if gone == "another":
        BeatLease(store, "shop", "them", 60.0).acquire()
    elif gone == "a new term of its own":
        assert lease.acquire().term == 2
    with pytest.raises(NotLeading, match="us does not lead in term 1"):
        write(store, tick, "a")
    assert (task_ids(store, SHARED), lease.runs()) == ([], {})


def test_a_run_after_another_than_is_known_is_refused(store: FleetStore, lease: BeatLease) -> None:
    write(store, lease.tick("often", "", FIRST), "a")
    for before in ("", as_text(SECOND)):
        with pytest.raises(AnotherRun, match="another run of often"):
            write(store, lease.tick("often", before, SECOND), "b", 2)
    assert (task_ids(store, SHARED), lease.runs()) == (["a"], {"often": FIRST})


def test_entries_count_by_themselves(store: FleetStore, lease: BeatLease) -> None:
    write(store, lease.tick("one", "", FIRST), "a")
    write(store, lease.tick("two", "", FIRST), "b", 2)
    assert task_ids(store, SHARED) == ["a", "b"]


def test_what_cannot_be_written_is_not_counted(store: FleetStore, lease: BeatLease) -> None:
    store.client.set("no list", "x")
    tick = lease.tick("often", "", FIRST)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        write(store, tick, "a", queue="no list")
    assert lease.runs() == {}
    assert write(store, tick, "a") == 1


def test_an_error_that_a_script_tells_counts_nothing(store: FleetStore, lease: BeatLease) -> None:
    tick = lease.tick("often", "", FIRST)
    text = ticked("return redis.error_reply('WRONGTYPE no list')")
    with pytest.raises(ResponseError, match="no list"):
        store.client.eval(text, len(tick.keys), *tick.keys, *tick.arguments)
    assert lease.runs() == {}


def test_a_run_without_a_message_counts_too(store: FleetStore, lease: BeatLease) -> None:
    tick = lease.tick("often", "", FIRST)
    lease.count(tick)
    assert lease.runs() == {"often": FIRST}
    lease.count(tick)
    with pytest.raises(AnotherRun):
        lease.count(lease.tick("often", "", SECOND))
