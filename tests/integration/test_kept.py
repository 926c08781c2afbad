"""A message that was taken and finds no room yet: it is held, comes next, and is nobody's stray."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from nxs_tasks.clock import FakeClock
from nxs_tasks.store.message import LOST_HEADER, UNIQUE_HEADER
from nxs_tasks.store.token import parse
from nxs_tasks.transport.tenure import Claimed
from nxs_tasks.worker.strays import APART_S, Strays
from tests.integration.claiming import MakeTaker, Taker, a_message
from tests.integration.holding import to_shared

pytest_plugins = ["tests.integration.claiming_fixtures"]

WIDE = "shop.wide"


@dataclass
class Space:
    """What the running tasks leave free, as the test says."""

    slot: bool = True
    wide: bool = False
    asked: list[str] = field(default_factory=list)

    def has_slot(self) -> bool:
        return self.slot

    def fits(self, task: str) -> bool:
        self.asked.append(task)
        return self.wide if task == WIDE else True


@pytest.fixture
def space(taker: Taker) -> Space:
    space = Space()
    taker.tenure.room = space
    return space


def wide(number: int | str, **headers: Any) -> str:
    return a_message(number, **{"task": WIDE, **headers})


def until_kept(taker: Taker) -> Claimed:
    taker.until(lambda: taker.tenure.kept is not None, "a message that finds no room")
    kept = taker.tenure.kept
    assert kept is not None
    return kept


def test_what_does_not_fit_is_held_and_not_delivered(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1), a_message(2))
    kept = until_kept(taker)
    assert kept.task == WIDE
    for _ in range(5):
        taker.drain(0.06)
    assert (taker.got, taker.held_ids(), taker.waiting()) == ([], {"1"}, 1)
    assert list(taker.held()) == [kept.token]
    assert set(space.asked) == {WIDE}


def test_it_comes_first_when_there_is_room(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1), a_message(2), a_message(3))
    until_kept(taker)
    space.wide = True
    assert taker.until_got(3) == ["1", "2", "3"]
    assert taker.tenure.kept is None
    for message in taker.got:
        message.ack()
    assert taker.held() == {}


def test_nothing_more_is_asked_for_if_it_takes_the_last_room(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1), a_message(2))
    until_kept(taker)
    space.wide, space.slot = True, False
    assert taker.until_got(1) == ["1"]
    for _ in range(3):
        taker.drain(0.06)
    assert (taker.ids(), taker.waiting()) == (["1"], 1)
    space.slot = True
    assert taker.until_got(2) == ["1", "2"]


def test_nothing_is_asked_for_while_no_slot_is_free(taker: Taker, space: Space) -> None:
    space.slot = False
    taker.store.client.lpush("celery", a_message(1))
    for _ in range(3):
        taker.drain(0.06)
    assert (taker.got, taker.held()) == ([], {})
    space.slot = True
    assert taker.until_got(1) == ["1"]


def test_whether_it_may_run_is_asked_when_it_is_to_begin(url: str, make_taker: MakeTaker) -> None:
    """It may be cancelled or paused while it is kept."""
    seen: list[str] = []

    def gate(claimed: Claimed) -> bool:
        seen.append(claimed.token)
        return True

    taker, space = make_taker(url, gate=gate), Space()
    taker.tenure.room = space
    taker.store.client.lpush("celery", wide(1))
    kept = until_kept(taker)
    assert seen == []
    space.wide = True
    taker.until_got(1)
    assert seen == [kept.token]


def test_it_is_no_stray(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1))
    until_kept(taker)
    taker.tenure.next_token()  # so that it is not the one that was asked for last
    clock = FakeClock()
    strays = Strays(taker.tenure, lambda: {m.delivery_tag for m in taker.got}, clock)
    for _ in range(3):
        assert strays.look() == 0
        clock.advance(APART_S)
    assert taker.held_ids() == {"1"}
    taker.tenure.kept = None
    assert strays.look() == 0
    clock.advance(APART_S)
    assert strays.look() == 1, "it would be one"


def test_it_is_given_to_one_that_has_the_room(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1))
    until_kept(taker)
    taker.tenure.send_kept("w2@t")
    assert (taker.tenure.kept, taker.held()) == (None, {})
    [raw] = taker.store.client.lrange(taker.store.keys.own_queue("w2@t"), 0, -1)
    assert json.loads(raw)["headers"]["id"] == "1"
    assert LOST_HEADER not in json.loads(raw)["headers"]


def test_of_two_that_take_it_one_gets_it(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1))
    kept = until_kept(taker)
    assert taker.tenure.take_kept() is kept
    assert taker.tenure.take_kept() is None
    assert not taker.tenure.send_kept("w2@t")
    space.wide = True
    taker.drain(0.06)
    assert taker.got == []


def test_its_holder_s_death_is_not_counted_against_it(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", a_message(1), wide(2))
    taker.until_got(1)
    kept = until_kept(taker)
    key = taker.store.keys.instance("w1@t")
    taker.store.client.hset(key, "kept", kept.token)
    taker.tenure.inflight.give_back(
        "w1@t", taker.tenure.epoch, to_shared, lost_at=taker.store.now(), lost_holders=1
    )
    [raw] = taker.store.client.lrange("celery", 0, -1)
    assert json.loads(raw)["headers"]["id"] == "2", "the other has killed one holder, and is aside"
    assert LOST_HEADER not in json.loads(raw)["headers"]


def test_it_is_given_back_with_all_that_is_held(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1))
    kept = until_kept(taker)
    tenure = taker.tenure
    assert tenure.settling() == set(), "nothing says that it is done"
    tokens = tenure.inflight.tokens("w1@t", tenure.epoch)
    assert tokens == [kept.token]
    back = tenure.inflight.give_back("w1@t", tenure.epoch, to_shared, tokens=tokens)
    assert (back.to_queues, taker.held(), taker.waiting()) == (1, {}, 1)


def test_it_outlives_the_connection_that_it_came_by(taker: Taker, space: Space) -> None:
    """It is delivered and done with by the new one: no slot and no unique_key stays taken."""
    client, unique = taker.store.client, taker.store.keys.unique("invoice-7")
    client.set(unique, "1")
    client.lpush("celery", wide(1, **{UNIQUE_HEADER: "invoice-7"}))
    until_kept(taker)
    taker.close()
    taker.connect()
    taker.channel.basic_qos(0, 1, False)
    client.lpush("celery", a_message(2))
    space.wide = True
    assert taker.until_got(1) == ["1"]
    assert not taker.channel.qos.can_consume()
    taker.got[0].ack()
    assert not client.exists(unique)
    assert taker.until_got(2) == ["1", "2"], "its slot is free again"
    assert taker.held_ids() == {"2"}


def test_one_that_is_kept_has_the_token_that_the_server_knows(taker: Taker, space: Space) -> None:
    taker.store.client.lpush("celery", wide(1))
    kept = until_kept(taker)
    token = parse(kept.token)
    assert token is not None
    assert (token.instance, token.epoch) == ("w1@t", taker.epoch)
    space.wide = True
    taker.until_got(1)
    assert taker.got[0].delivery_tag == kept.token
