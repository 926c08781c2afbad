"""What the tasks that Celery has taken up leave free, by Celery's own account of them."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from celery.worker.request import Request
from kombu import Message
from kombu.serialization import dumps

from nxs_tasks.model.demand import Traits
from nxs_tasks.worker.ahead import short_slots
from nxs_tasks.worker.capacity import Capacity
from nxs_tasks.worker.tally import Tally

GB = 10**9
TRAITS = {
    "wide": Traits(slots=2),
    "big": Traits(memory=6 * GB),
    "both": Traits(slots=3, memory=2 * GB),
    "io": Traits(io=True),
}
Begin = Callable[..., list[Any]]


def nothing() -> None:
    """What a task does here."""


@pytest.fixture
def begin() -> Iterator[Begin]:
    """`begin("wide", "plain")` has Celery take up tasks of these names; returns its requests."""
    app = Celery("shop", set_as_current=False)
    for name in (*TRAITS, "plain"):
        app.task(name=name, shared=False)(nothing)
    app.finalize()
    begun: list[Any] = []

    def take_up(*names: str) -> list[Any]:
        requests = [a_request(app, name) for name in names]
        begun.extend(requests)
        for request in requests:
            state.task_reserved(request)
        return requests

    yield take_up
    for request in begun:
        end(request)
    app.close()


def a_request(app: Any, name: str) -> Any:
    draft = app.amqp.as_task_v2(f"id-of-{name}", name, (), {})
    content_type, encoding, body = dumps(draft.body, "json")
    message = Message(
        body,
        content_type=content_type,
        content_encoding=encoding,
        headers=draft.headers,
        properties=draft.properties,
        delivery_info={},
    )
    return Request(message, app=app, task=app.tasks[name], hostname="w1@t")


def end(request: Any) -> None:
    state.requests.pop(request.id, None)
    state.reserved_requests.discard(request)
    state.active_requests.discard(request)


def capacity(slots: int | None = 4, memory: int | None = 13 * GB, **traits: Traits) -> Capacity:
    return Capacity({**TRAITS, **traits}, lambda: slots, memory)


def test_nothing_runs() -> None:
    free = capacity()
    assert (free.extra(), free.reserved(), free.has_slot()) == (0, 0, True)
    assert all(free.fits(name) for name in (*TRAITS, "plain", ""))


def test_what_runs_takes_what_it_declares(begin: Begin) -> None:
    begin("wide", "big", "io", "plain")
    assert (capacity().extra(), capacity().reserved()) == (1, 6 * GB)
    begin("both")
    assert (capacity().extra(), capacity().reserved()) == (3, 8 * GB)


def test_one_that_waits_for_the_pool_takes_it_too_and_one_that_has_ended_does_not(
    begin: Begin,
) -> None:
    first, second = begin("wide", "both")
    state.task_accepted(first)
    assert capacity().extra() == 3
    state.task_ready(first)
    assert capacity().extra() == 2
    state.task_ready(second)
    assert (capacity().extra(), capacity().reserved()) == (0, 0)


@pytest.mark.parametrize(
    ("running", "slots", "has_slot", "fitting"),
    [
        (["plain"], 4, True, {"wide", "both", "big", "io"}),
        (["plain", "plain"], 4, True, {"wide", "big", "io"}),
        (["plain", "wide"], 4, True, {"big", "io"}),
        (["wide", "wide"], 4, False, set()),
        (["plain"] * 4, 4, False, set()),
        (["plain"] * 4, None, True, {"wide", "both", "big", "io"}),
    ],
)
def test_what_fits_beside_what_runs(
    begin: Begin, running: list[str], slots: int | None, has_slot: bool, fitting: set[str]
) -> None:
    kept = begin(*running)
    assert kept
    free = capacity(slots)
    assert free.has_slot() is has_slot
    assert {name for name in TRAITS if free.fits(name)} == fitting


def test_what_declares_nothing_fits_because_its_slot_was_asked_for_before(begin: Begin) -> None:
    kept = begin("wide", "wide")
    assert kept
    assert capacity().fits("plain")


def test_memory_is_given_up_to_the_last_byte(begin: Begin) -> None:
    kept = begin("big")
    assert kept
    assert capacity(memory=12 * GB).fits("big")
    assert not capacity(memory=12 * GB - 1).fits("big")
    assert capacity(memory=None).fits("big")
    assert capacity(memory=12 * GB - 1).fits("io"), "which takes none"


def test_where_no_task_declares_anything_celery_alone_counts(begin: Begin) -> None:
    kept = begin("plain", "plain")
    assert kept
    free = Capacity({}, lambda: 1, None)
    assert (free.has_slot(), free.fits("plain"), free.extra(), free.reserved()) == (
        True,
        True,
        0,
        0,
    )


def test_a_pool_that_has_shrunk_runs_alone_what_is_too_wide_for_it(begin: Begin) -> None:
    """It would be kept for good, and nothing else be taken."""
    kept = begin("plain")
    free = capacity(slots=1)
    assert not free.fits("both")
    state.task_ready(kept.pop())
    gc.collect()
    assert free.fits("both")


def test_a_set_that_others_change_meanwhile_is_read_all_the_same(begin: Begin) -> None:
    """A pool of threads ends tasks while the heartbeat looks."""
    stays, *others = begin("wide", *["plain"] * 50)
    begun, over = threading.Event(), threading.Event()

    def churn() -> None:
        begun.set()
        while not over.is_set():
            for request in others:
                state.reserved_requests.discard(request)
            for request in others:
                state.reserved_requests.add(request)

    thread, before = threading.Thread(target=churn), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    begun.wait()
    try:
        assert {capacity().extra() for _ in range(20_000)} == {1}
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
    assert stays in state.reserved_requests


def test_what_waits_for_a_rate_limit_takes_it_too(begin: Begin) -> None:
    begin("plain")
    limited = ["big", "plain", "plain"]
    taken = Capacity(TRAITS, lambda: 8, 13 * GB, lambda: limited)
    assert taken.reserved() == 6 * GB
    assert taken.fits("big")
    limited.append("big")
    assert not taken.fits("big")


class TestShort:
    """How many slots there are if all are taken by tasks that are known to be short, else 0."""

    @pytest.mark.parametrize(
        ("running", "expected"),
        [
            pytest.param(["plain", "io"], 2, id="all are taken by short ones"),
            pytest.param(["plain"], 0, id="one is free"),
            pytest.param([], 0, id="all are free"),
            pytest.param(["plain", "wide"], 0, id="one is long"),
            pytest.param(["plain", "big"], 0, id="of one nothing is known"),
            pytest.param(["plain", "both"], 0, id="one takes just as long as is too long"),
        ],
    )
    def test_by_what_runs(self, begin: Begin, running: list[str], expected: int) -> None:
        tally = Tally()
        for name, seconds in [("plain", 0.1), ("io", 0.4), ("wide", 9.0), ("both", 0.5)]:
            tally.success(name, seconds)
        kept = begin(*running)
        assert short_slots(tally, lambda: 2, list, 0.5)() == expected
        assert len(kept) == len(running)

    def test_a_name_that_becomes_long_is_short_no_more(self, begin: Begin) -> None:
        tally = Tally()
        count = short_slots(tally, lambda: 1, list, 0.5)
        kept = begin("plain")
        tally.success("plain", 0.1)
        assert count() == 1
        tally.success("plain", 60.0)
        assert count() == 0
        assert kept

    def test_not_while_something_waits_for_a_rate_limit(self, begin: Begin) -> None:
        tally = Tally()
        tally.success("plain", 0.1)
        kept = begin("plain")
        assert short_slots(tally, lambda: 1, lambda: ["plain"], 0.5)() == 0
        assert kept

    def test_nor_if_the_pool_does_not_say_how_many_slots_it_has(self, begin: Begin) -> None:
        tally = Tally()
        tally.success("plain", 0.1)
        kept = begin("plain")
        assert short_slots(tally, lambda: None, list, 0.5)() == 0
        assert kept
