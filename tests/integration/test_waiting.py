"""An idle worker waits to be told, and asks nobody: pushes, times that come, pauses that end."""

from __future__ import annotations

import random

import pytest

from nxs_tasks.model.shelf import DELAYED
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.transport import consuming
from tests.integration.claiming import OWN, MakeTaker, Taker, a_message, shelve

pytest_plugins = ["tests.integration.claiming_fixtures"]


def test_an_idle_worker_does_not_poll(taker: Taker, only_notices: None) -> None:
    taker.until_armed()
    taker.store.client.config_resetstat()
    for _ in range(20):
        assert not taker.drain(0.02)
    assert taker.asks() == 0


def test_an_idle_worker_asks_again_after_a_while(
    taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice may be lost with nobody noticing."""
    monkeypatch.setattr(consuming, "ASK_AGAIN_S", 0.02)
    taker.until_armed()
    taker.store.client.config_resetstat()
    taker.until(lambda: taker.asks() >= 3, "it to ask again", turn_s=0.5)


@pytest.mark.parametrize("priority", [0, 3, 6, 9])
@pytest.mark.parametrize("queue", [OWN, "celery", "video"])
def test_a_push_to_any_list_wakes_it(
    url: str, make_taker: MakeTaker, only_notices: None, queue: str, priority: int
) -> None:
    taker = make_taker(url, queues=(OWN, "celery", "video"))
    taker.until_armed()
    taker.store.client.lpush(taker.store.wire.list_of(queue, priority), a_message(1))
    assert taker.until_got(1) == ["1"]


def test_it_is_woken_again_and_again(taker: Taker, only_notices: None) -> None:
    for number in range(1, 6):
        taker.until_armed()
        taker.store.client.lpush("celery", a_message(number))
        assert len(taker.until_got(number)) == number
        taker.got[-1].ack()


def test_a_push_right_behind_the_empty_answer_wakes_it(taker: Taker, only_notices: None) -> None:
    """Both are read at once: nothing is left on the socket that would wake a poll."""
    taker.until_armed()
    taker.ask()
    taker.store.client.wait(0, 0)
    taker.store.client.lpush("celery", a_message(1))
    assert taker.until_got(1) == ["1"]


def test_whoever_comes_too_late_several_times_waits_a_random_moment(
    taker: Taker, only_notices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One notice goes to every idle worker, and one of them gets the message."""
    monkeypatch.setattr(consuming, "SPREAD_S", 0.5)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    for told in range(1, consuming.FUTILE + 1):
        taker.until_armed()
        assert taker.channel.waits_s() > 0.5
        with taker.store.client.pipeline(transaction=True) as pipe:
            pipe.lpush("celery", a_message(1))
            pipe.rpop("celery")
            pipe.execute()
        taker.until(lambda: taker.channel._futile >= told, "the notice")  # noqa: B023
    assert taker.channel.waits_s() <= 0.5
    taker.store.client.lpush("celery", a_message(2))
    assert taker.until_got(1) == ["2"]
    assert taker.channel._futile == 0, "it was in time"


def test_a_delayed_message_is_taken_when_it_is_due(taker: Taker, only_notices: None) -> None:
    shelve(taker, "1", in_s=0.3)
    taker.store.client.config_resetstat()
    taker.until(lambda: bool(taker.got), "the delayed message", turn_s=10.0)
    due = float(taker.store.client.get("due") or 0)
    assert taker.store.now() >= due
    assert taker.asks() <= 4, "it slept until the time"
    assert Shelves(taker.store).count(DELAYED) == 0


def test_a_message_that_is_delayed_meanwhile_is_not_overslept(
    taker: Taker, only_notices: None
) -> None:
    shelve(taker, "late", in_s=3600)
    taker.until_armed()
    shelve(taker, "early", in_s=0.1)
    assert taker.until_got(1) == ["early"]


@pytest.mark.parametrize("queue", ["celery", OWN])
def test_a_paused_queue_gives_nothing_until_it_is_resumed(
    taker: Taker, only_notices: None, queue: str
) -> None:
    """What was placed belongs to the shared queue, so it is paused with that."""
    paused = taker.store.keys.paused_queues()
    taker.store.client.sadd(paused, "celery")
    taker.store.client.lpush(queue, a_message(1))
    taker.until_armed()
    assert not taker.drain(0.1)
    taker.store.client.srem(paused, "celery")
    assert taker.until_got(1) == ["1"]


def test_a_paused_queue_does_not_stand_in_the_way_of_another(
    url: str, make_taker: MakeTaker
) -> None:
    taker = make_taker(url, queues=(OWN, "celery", "video"))
    taker.store.client.sadd(taker.store.keys.paused_queues(), "celery")
    taker.store.client.lpush("celery", a_message(1))
    taker.store.client.lpush("video", a_message(2))
    assert taker.until_got(1) == ["2"]
