"""An idle worker looks for what waits for others, on a real server; and its channel takes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks.clock import SYSTEM, FakeClock, wait_until
from nxs_tasks.errors import BrokerError
from nxs_tasks.model.decision import Nothing, Steal
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.stealing import Stealing
from tests.conftest import Server, add_instance, new_store
from tests.integration.claiming import PATIENCE_S, Taker, a_message
from tests.integration.holding import Process
from tests.integration.messages import SHARED, message, put

pytest_plugins = ["tests.integration.claiming_fixtures"]

PERIOD = Settings().steal_period
PLACED: dict[str, Any] = {"nxs": {"to": "w1", "score": 0.9, "why": "by hand", "at": 1.0}}


class Idler:
    """The instance w9, and its looks at the lines of others."""

    def __init__(self, url: str, clock: Any = None, **settings: Any) -> None:
        self.store = new_store(url)
        self.clock = clock or FakeClock()
        self.tenure = Tenure(self.store, "w9", add_instance(self.store, "w9"))
        self.stealing = Stealing(new_store(url), self.tenure, Settings(**settings), self.clock)

    def finds_nothing(self) -> None:
        self.tenure.took(None, self.clock.monotonic())

    def is_idle(self) -> None:
        self.finds_nothing()
        self.clock.advance(PERIOD)

    @property
    def theft(self) -> Steal | None:
        return self.tenure.theft


def a_line(store: FleetStore, name: str = "w1", *, waits: int = 3, held: int = 2) -> Process:
    """An instance with two slots that holds so many; so many wait."""
    owner, queue = Process(store, name), store.keys.own_queue(name)
    put(store, SHARED, *(message(f"{name}-held-{n}", SHARED) for n in range(held)))
    for _ in range(held):
        owner.take()
    put(store, queue, *(message(f"{name}-{n}", queue, **PLACED) for n in range(waits)))
    store.client.zadd(store.keys.waiting(), {name: waits})
    return owner


@pytest.fixture
def idler(url: str) -> Idler:
    return Idler(url)


def test_who_is_idle_for_a_while_decides_whom_to_take_from(idler: Idler) -> None:
    a_line(idler.store)
    idler.is_idle()
    found = idler.stealing.look()
    assert isinstance(found, Steal)
    assert (found.victims, found.reason) == (("w1",), "is idle, and 3 task(s) wait for w1")
    assert idler.theft is found
    assert idler.tenure.wishes().others == ("nxs.default/w1",)
    assert idler.tenure.wishes().names is None


def test_who_is_not_idle_so_long_does_not_look(idler: Idler) -> None:
    a_line(idler.store)
    assert idler.stealing.look() is None, "it has not even asked for work"
    idler.finds_nothing()
    idler.clock.advance(PERIOD * 0.9)
    idler.finds_nothing()
    assert idler.stealing.look() is None
    idler.clock.advance(PERIOD * 0.2)
    assert isinstance(idler.stealing.look(), Steal), "idle since the first time"


@pytest.mark.parametrize("queue", ["celery", "nxs.default/w9", "nxs.default/w2"])
def test_work_from_elsewhere_ends_it_at_once(idler: Idler, queue: str) -> None:
    a_line(idler.store)
    idler.is_idle()
    idler.stealing.look()
    idler.tenure.took(queue, idler.clock.monotonic())
    assert (idler.theft, idler.tenure.idle_since) == (None, None)
    assert idler.tenure.wishes().others == ()
    assert idler.stealing.look() is None


def test_what_was_taken_from_there_does_not_end_it(idler: Idler) -> None:
    a_line(idler.store)
    idler.is_idle()
    found = idler.stealing.look()
    idler.tenure.took("nxs.default/w1", idler.clock.monotonic())
    assert idler.theft is found
    assert isinstance(idler.stealing.look(), Steal)


@pytest.mark.parametrize("what", ["a free slot", "nothing waits", "forgotten"])
def test_it_ends_when_there_is_nothing_to_take_any_more(idler: Idler, what: str) -> None:
    owner = a_line(idler.store)
    idler.is_idle()
    idler.stealing.look()
    if what == "a free slot":
        owner.acknowledge(owner.tokens()[0])
    elif what == "nothing waits":
        idler.store.client.delete("nxs.default/w1")
    else:
        owner.is_forgotten()
    assert isinstance(idler.stealing.look(), Nothing)
    assert idler.theft is None


def test_it_goes_on_with_the_next_line(idler: Idler) -> None:
    a_line(idler.store, "w1", waits=3)
    a_line(idler.store, "w2", waits=2)
    idler.is_idle()
    for _ in range(2):
        assert getattr(idler.stealing.look(), "victims", None) == ("w1", "w2")
    idler.store.client.delete("nxs.default/w1")
    assert getattr(idler.stealing.look(), "victims", None) == ("w2",)


@pytest.mark.parametrize("what", ["gone", "another process", "leaving"])
def test_who_has_no_place_any_more_takes_nothing(idler: Idler, what: str) -> None:
    a_line(idler.store)
    idler.is_idle()
    assert isinstance(idler.stealing.look(), Steal)
    record = idler.store.keys.instance("w9")
    if what == "gone":
        idler.store.client.delete(record)
    elif what == "another process":
        add_instance(idler.store, "w9")
    else:
        idler.store.client.hset(record, "state", State.LEAVING)
    assert not isinstance(idler.stealing.look(), Steal)
    assert idler.theft is None


def test_without_an_answer_it_takes_nothing_and_says_so_once(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    idler = Idler(own_server.url)
    a_line(idler.store)
    idler.is_idle()
    idler.stealing.look_safely()
    assert idler.theft is not None
    own_server.kill()
    with caplog.at_level(logging.WARNING, "nxs_tasks.worker.stealing"):
        idler.stealing.look_safely()
        assert idler.theft is None
        idler.stealing.look_safely()
    assert len(caplog.records) == 1
    with pytest.raises(BrokerError):
        idler.stealing.look()
    own_server.start()
    idler.stealing.look_safely()
    assert idler.theft is not None


def test_a_record_that_nobody_understands_ends_no_looking(idler: Idler) -> None:
    a_line(idler.store)
    add_instance(idler.store, "w2")
    idler.store.client.hset(idler.store.keys.instance("w2"), "load", "{")
    idler.store.client.zadd(idler.store.keys.waiting(), {"w2": 99})
    idler.is_idle()
    idler.stealing.look_safely()
    assert idler.theft is not None
    assert idler.theft.victims == ("w1",)


@pytest.fixture
def running(url: str) -> Iterator[Idler]:
    idler = Idler(url, SYSTEM, steal_period=0.02)
    yield idler
    idler.stealing.stop()


def test_the_thread_looks_until_it_is_stopped(running: Idler) -> None:
    a_line(running.store)
    running.finds_nothing()
    running.stealing.start()
    assert wait_until(lambda: running.theft is not None, PATIENCE_S)
    running.stealing.stop()
    assert not running.stealing.is_alive()
    assert running.theft is None
    running.stealing.stop()


# the channel of an idle worker


def of_another(number: int) -> str:
    return a_message(number, queue="nxs.default/w2@t", **PLACED)


def theft(names: frozenset[str] | None = None) -> Steal:
    about: dict[str, Any] = {"instance": "w1@t", "epoch": 1, "source": State.ACTIVE}
    return Steal(victims=("w2@t",), names=names, reason="by hand", **about)


def test_its_consumer_gets_what_waits_for_another(taker: Taker) -> None:
    taker.tenure.theft = theft()
    taker.store.client.lpush("nxs.default/w2@t", of_another(1), of_another(2))
    taker.store.client.lpush("celery", a_message(3))
    assert taker.until_got(1) == ["3"], "what is its own comes first"
    assert taker.tenure.theft is None, "and the others have to wait for the next look"
    taker.until_armed()
    assert taker.waiting("nxs.default/w2@t") == 2
    taker.tenure.theft = theft()
    assert taker.until_got(3) == ["3", "1", "2"]
    assert {queue for _, queue in taker.held().values()} == {"celery", "nxs.default/w2@t"}
    for got in taker.got:
        got.ack()
    assert taker.held() == {}


def test_it_is_told_when_something_comes_there(taker: Taker, only_notices: None) -> None:
    taker.tenure.theft = theft()
    taker.until_armed()
    taker.store.client.lpush("nxs.default/w2@t", of_another(1))
    assert taker.until_got(1) == ["1"]
    assert taker.tenure.theft is not None
    assert taker.tenure.idle_since is not None, "it is idle as long as it has only what is theirs"


def test_it_takes_only_what_it_may(taker: Taker) -> None:
    taker.tenure.theft = theft(frozenset({"shop.other"}))
    taker.store.client.lpush("nxs.default/w2@t", of_another(1))
    taker.until_armed()
    assert (taker.got, taker.waiting("nxs.default/w2@t")) == ([], 1)
