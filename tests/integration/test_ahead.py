"""While all slots are taken by short tasks one message is taken ahead, and starts or goes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.transport.ahead import Ahead
from nxs_tasks.transport.tenure import Claimed
from tests.integration.claiming import OWN, MakeTaker, Taker, a_message

pytest_plugins = ["tests.integration.claiming_fixtures"]

#: No test waits for so long, s.
NEVER_S = 3600.0


def busy(taker: Taker, *messages: str, queue: str = "celery", longest_s: float = NEVER_S) -> None:
    """A process with one slot, taken by the first of these; all tasks are short."""
    taker.channel.basic_qos(0, 1, False)
    taker.tenure.ahead = Ahead(lambda: 1, longest_s=longest_s)
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    if messages:
        taker.store.client.lpush(queue, *messages)


def until_kept(taker: Taker) -> Claimed:
    taker.until(lambda: taker.tenure.kept is not None, "a message that is taken ahead")
    kept = taker.tenure.kept
    assert kept is not None
    return kept


def until_asked_in_vain(taker: Taker) -> None:
    """Until the broker has said that there is nothing to be taken ahead."""
    taker.tenure.ahead.ends += 1  # as if a task had ended, so that it asks
    taker.until(lambda: taker.tenure.ahead.wanted() == 0, "an answer")


def numbers(*found: int | str) -> list[str]:
    return [a_message(number) for number in found]


def waiting_ids(taker: Taker, queue: str = "celery") -> list[str]:
    """Who is next first."""
    texts = reversed(taker.store.client.lrange(queue, 0, -1))
    return [json.loads(text)["headers"]["id"] for text in texts]


def test_one_is_taken_and_not_delivered(taker: Taker) -> None:
    busy(taker, *numbers(2, 3, 4))
    kept = until_kept(taker)
    for _ in range(3):
        taker.drain(0.02)
    assert (taker.ids(), taker.held_ids()) == (["1"], {"1", "2"})
    assert waiting_ids(taker) == ["3", "4"], "one, and no more"
    assert kept.token in taker.held()
    assert taker.tenure.settling() == set()


def test_it_starts_when_there_is_a_slot_and_the_next_is_taken(taker: Taker) -> None:
    busy(taker, *numbers(2, 3, 4, 5))
    kept = until_kept(taker)
    taker.got[0].ack()
    assert taker.until_got(2) == ["1", "2"]
    assert taker.got[1].delivery_tag == kept.token
    taker.until(lambda: taker.held_ids() == {"2", "3"}, "the next one")
    assert taker.ids() == ["1", "2"]


def test_all_come_once_and_in_order(taker: Taker) -> None:
    busy(taker, *numbers(*range(2, 40)))
    while len(taker.got) < 39:
        taker.got[-1].ack()
        taker.until_got(len(taker.got) + 1)
    taker.got[-1].ack()
    assert taker.ids() == [str(n) for n in range(1, 40)]
    assert (taker.held(), taker.waiting()) == ({}, 0)


def test_what_every_other_slot_could_start_is_left_to_them(taker: Taker) -> None:
    busy(taker, *numbers(2))
    until_asked_in_vain(taker)
    assert (taker.held_ids(), waiting_ids(taker)) == ({"1"}, ["2"])
    taker.got[0].ack()
    assert taker.until_got(2) == ["1", "2"]


def test_of_the_own_queue_also_the_last(taker: Taker) -> None:
    busy(taker, a_message(2, queue=OWN), queue=OWN)
    assert until_kept(taker).queue == OWN


def test_the_less_urgent_is_not_taken_before_the_more_urgent(taker: Taker) -> None:
    busy(taker)
    wire = taker.store.wire
    taker.store.client.lpush(wire.list_of("celery", 3), *numbers(*range(10, 20)))
    taker.store.client.lpush("celery", a_message("urgent"))
    until_asked_in_vain(taker)
    assert taker.held_ids() == {"1"}
    taker.got[0].ack()
    assert taker.until_got(2) == ["1", "urgent"]


def test_a_process_that_is_suspended_takes_nothing(taker: Taker) -> None:
    busy(taker)
    taker.tenure.suspended = True
    taker.store.client.lpush("celery", *numbers(2, 3, 4))
    for _ in range(3):
        taker.drain(0.02)
    assert taker.held_ids() == {"1"}


def test_nothing_is_taken_while_a_long_task_runs(taker: Taker) -> None:
    busy(taker)
    taker.tenure.ahead = Ahead(lambda: 0, longest_s=NEVER_S)
    taker.store.client.lpush("celery", *numbers(2, 3, 4))
    for _ in range(3):
        taker.drain(0.02)
    assert taker.held_ids() == {"1"}


class TestBack:
    def test_what_can_not_start_in_time_goes_back_to_be_next(self, taker: Taker) -> None:
        busy(taker, *numbers(2, 3, 4), longest_s=0.05)
        until_kept(taker)
        taker.until(lambda: taker.tenure.kept is None, "it to be given back")
        assert (taker.ids(), taker.held_ids()) == (["1"], {"1"})
        assert waiting_ids(taker) == ["2", "3", "4"]
        [*_, back] = taker.store.client.lrange("celery", 0, -1)
        assert "nxs_lost" not in json.loads(back)["headers"], "nobody died"

    def test_then_nothing_is_taken_ahead_until_a_task_has_ended(self, taker: Taker) -> None:
        busy(taker, *numbers(2, 3, 4), longest_s=0.05)
        until_kept(taker)
        taker.until(lambda: taker.tenure.kept is None, "it to be given back")
        for _ in range(3):
            taker.drain(0.02)
        assert taker.held_ids() == {"1"}
        taker.tenure.ahead.longest_s = NEVER_S
        taker.got[0].ack()
        assert taker.until_got(2) == ["1", "2"]
        assert until_kept(taker).message.headers["id"] == "3"

    def test_to_the_own_queue_if_it_came_from_there(self, taker: Taker) -> None:
        """Its sender may have put it there by name."""
        busy(taker, a_message(2, queue=OWN), queue=OWN, longest_s=0.05)
        until_kept(taker)
        taker.until(lambda: taker.tenure.kept is None, "it to be given back")
        assert (waiting_ids(taker, OWN), waiting_ids(taker)) == (["2"], [])

    def test_of_a_process_that_is_suspended_also_with_a_free_slot(self, taker: Taker) -> None:
        busy(taker, *numbers(2, 3, 4), longest_s=0.3)
        until_kept(taker)
        taker.tenure.suspended = True
        taker.got[0].ack()
        taker.until(lambda: taker.tenure.kept is None, "it to be given back")
        assert (taker.ids(), taker.held()) == (["1"], {})
        assert waiting_ids(taker) == ["2", "3", "4"]

    def test_to_others_when_the_process_leaves(self, taker: Taker) -> None:
        busy(taker, a_message(2, queue=OWN), queue=OWN)
        until_kept(taker)
        taker.tenure.give_back_kept(leaving=True)
        assert (taker.held_ids(), waiting_ids(taker)) == ({"1"}, ["2"])


class TestUnwanted:
    @pytest.fixture
    def judged(self, url: str, make_taker: MakeTaker) -> tuple[Taker, list[bool]]:
        """A process, and for each message whether it was asked for what people want."""
        seen: list[bool] = []

        def gate(claimed: Claimed) -> bool:
            seen.append(claimed.intents)
            return True

        return make_taker(url, gate=gate), seen

    def test_nobody_is_asked_while_nothing_is_cancelled_or_paused(self, judged: Any) -> None:
        taker, seen = judged
        busy(taker, *numbers(2, 3, 4))
        until_kept(taker)
        taker.got[0].ack()
        taker.until_got(2)
        assert seen == [False, False]

    @pytest.mark.parametrize("what", ["cancelled", "paused_tasks"])
    def test_what_people_want_since_it_was_taken_counts(self, judged: Any, what: str) -> None:
        taker, seen = judged
        busy(taker, *numbers(2, 3, 4))
        until_kept(taker)
        key = getattr(taker.store.keys, what)()
        taker.store.client.sadd(key, "some")
        taker.got[0].ack()
        taker.until_got(2)
        assert seen == [False, True]

    def test_one_that_is_no_message_is_judged_at_once(self, url: str, make_taker: Any) -> None:
        seen: list[Any] = []

        def gate(claimed: Claimed) -> bool:
            seen.append(claimed.message)
            return claimed.message is not None

        taker = make_taker(url, gate=gate)
        busy(taker, "no message", *numbers(3, 4))
        taker.until(lambda: None in seen, "it to be judged")
        assert taker.ids() == ["1"]


class TestOnTheWay:
    def ask_ahead(self, taker: Taker) -> None:
        """The question is sent, and its answer is not read."""
        taker.tenure.ahead.ends += 1
        taker.connection.transport.cycle.on_poll_start()
        assert taker.channel._asks_ahead is not None

    def test_an_answer_is_for_the_slot_that_comes_before_it(self, taker: Taker) -> None:
        busy(taker)
        taker.store.client.lpush("celery", *numbers(2, 3, 4))
        self.ask_ahead(taker)
        taker.got[0].ack()
        assert taker.until_got(2) == ["1", "2"]
        taker.until(lambda: taker.held_ids() == {"2", "3"}, "the next one")

    @pytest.mark.usefixtures("only_notices")
    def test_what_was_left_to_others_is_taken_for_a_slot(self, taker: Taker) -> None:
        busy(taker)
        taker.store.client.lpush("celery", *numbers(2))
        self.ask_ahead(taker)
        taker.got[0].ack()
        assert taker.until_got(2) == ["1", "2"]

    def test_a_channel_that_is_closed_reads_it(self, taker: Taker) -> None:
        busy(taker)
        taker.store.client.lpush("celery", *numbers(2, 3, 4))
        self.ask_ahead(taker)
        taker.close()
        kept = taker.tenure.kept
        assert kept is not None
        assert taker.held_ids() == {"1", "2"}
        taker.connect()
        taker.channel.basic_qos(0, 1, False)
        assert taker.until_got(2) == ["1", "2"]
        assert taker.got[1].delivery_tag == kept.token

    def test_a_connection_that_is_cut_answers_nothing(self, taker: Taker) -> None:
        busy(taker)
        self.ask_ahead(taker)
        taker.channel.client.connection.disconnect()
        assert taker.channel._asks_ahead is None
