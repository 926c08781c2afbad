"""What the spool hands out: batches, their order, doubts, and who may take them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nxs_tasks.clock import FakeClock
from nxs_tasks.deadline import Deadline
from nxs_tasks.store.publisher import REMEMBERED_S
from nxs_tasks.submission.batches import LEASE_S, MOST_BYTES, Batch, Batches, drop, retry, rows
from nxs_tasks.submission.spool import Kept, Spool

BROKER = "redis://broker/0"


class Place:
    """A spool, and those who drain it."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.spool = Spool(path, limit_mb=64)
        self.a = self.drainer("a")

    def drainer(self, name: str, broker: str = BROKER) -> Batches:
        return Batches(self.spool, broker, name, self.clock)

    def keep(self, *messages: str, **more: object) -> None:
        given: dict[str, object] = {"broker": BROKER, "at": self.clock.now(), "why": "away"}
        given |= {"list": "celery", **more}
        kept = [Kept(**{**given, "message": m}) for m in messages]  # type: ignore[arg-type]
        self.spool.keep(kept, Deadline(10))

    def messages(self) -> list[str]:
        return [row.message for row in rows(self.spool, 10_000)]

    def send_all(self, drainer: Batches | None = None) -> list[tuple[str, ...]]:
        """What is handed out until nothing is, each batch accepted."""
        by, sent = drainer or self.a, []
        while (batch := by.take()) is not None:
            sent.append(batch.messages)
            by.sent(batch)
        return sent

    def take(self, drainer: Batches | None = None) -> Batch:
        batch = (drainer or self.a).take()
        assert batch is not None
        return batch


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "spool.db")
    yield made
    made.spool.close()


class TestOrder:
    def test_nothing_waits(self, place: Place) -> None:
        assert (place.a.take(), place.a.doubt(), place.a.waiting()) == (None, None, 0)

    def test_a_batch_is_of_one_list_and_begins_with_the_oldest(self, place: Place) -> None:
        place.keep("m1", list="mails")
        for n in (1, 2):
            place.keep(f"c{n}")
            place.keep(f"m{n + 1}", list="mails")
        assert place.a.waiting() == 5
        assert place.send_all() == [("m1", "m2", "m3"), ("c1", "c2")]
        assert place.a.waiting() == 0

    def test_a_batch_has_a_name_of_its_own(self, place: Place) -> None:
        place.keep("a")
        first = place.take()
        place.a.sent(first)
        place.keep("b")
        assert place.take().producer != first.producer

    def test_a_batch_is_no_larger_than_that(self, place: Place) -> None:
        place.keep(*(f"m{n}" for n in range(1201)))
        assert [len(sent) for sent in place.send_all()] == [500, 500, 201]
        large = "x" * (MOST_BYTES // 2 + 1)
        place.keep(large, large, "small")
        assert [len(sent) for sent in place.send_all()] == [1, 2]
        place.keep("x" * 3 * MOST_BYTES)
        assert [len(sent) for sent in place.send_all()] == [1]

    def test_one_with_a_unique_key_goes_alone(self, place: Place) -> None:
        place.keep("a")
        place.keep("b", unique_key="k", task_id="t-b")
        place.keep("c")
        place.keep("d", unique_key="l", task_id="t-d")
        batches = []
        while (batch := place.a.take()) is not None:
            batches.append((batch.messages, batch.unique_key, batch.task_id))
            place.a.sent(batch)
        assert batches == [
            (("a",), "", ""),
            (("b",), "k", "t-b"),
            (("c",), "", ""),
            (("d",), "l", "t-d"),
        ]

    def test_what_comes_while_a_batch_is_sent_is_not_taken_for_sent(self, place: Place) -> None:
        place.keep("a", "b")
        batch = place.take()
        place.keep("c")
        assert place.a.sent(batch) == 2
        assert place.messages() == ["c"]

    def test_another_broker_is_none_of_ours(self, place: Place) -> None:
        place.keep("theirs", broker="redis://other/0")
        place.keep("ours")
        other = place.drainer("o", "redis://other/0")
        assert place.send_all() == [("ours",)]
        assert place.send_all(other) == [("theirs",)]


class TestDoubt:
    def test_a_batch_without_an_end_is_one(self, place: Place) -> None:
        place.keep("a", "b")
        place.keep("m", list="mails")
        batch = place.take()
        place.keep("c")
        doubt = place.a.doubt()
        assert doubt is not None
        assert (doubt.producer, doubt.number) == (batch.producer, 1)

    @pytest.mark.parametrize(
        ("accepted", "left"), [(True, ["m", "c"]), (False, ["a", "b", "m", "c"])]
    )
    def test_it_is_settled_for_its_rows_alone(
        self, place: Place, accepted: bool, left: list[str]
    ) -> None:
        place.keep("a", "b")
        place.keep("m", list="mails")
        place.take()
        place.keep("c")
        doubt = place.a.doubt()
        assert doubt is not None
        assert place.a.settle(doubt, accepted=accepted) == (2 if accepted else 0)
        assert place.messages() == left
        assert place.a.doubt() is None
        assert sorted(m for batch in place.send_all() for m in batch) == sorted(left)

    @pytest.mark.parametrize(("accepted", "left"), [(True, ["c"]), (False, ["a", "b", "c"])])
    def test_so_is_what_was_sent_before_it_came(
        self, place: Place, accepted: bool, left: list[str]
    ) -> None:
        place.keep("a", producer="p", number=4)
        place.keep("b", list="mails", producer="p", number=4)
        place.keep("c", producer="p", number=5)
        assert place.a.take() is None  # not before it is settled
        doubt = place.a.doubt()
        assert doubt is not None
        assert (doubt.producer, doubt.number) == ("p", 4)
        place.a.settle(doubt, accepted=accepted)
        assert place.messages() == left
        if accepted:
            again = place.a.doubt()
            assert again is not None
            assert again.number == 5

    def test_a_batch_ends_before_a_row_in_doubt(self, place: Place) -> None:
        place.keep("a", "b")
        place.keep("c", producer="p", number=4)
        place.keep("d")
        assert place.take().messages == ("a", "b")

    def test_what_nobody_can_tell_any_more_is_left_to_a_person(self, place: Place) -> None:
        place.keep("old", producer="p", number=4)
        place.keep("new")
        place.clock.advance(REMEMBERED_S)
        assert place.a.doubt() is None
        assert place.send_all() == [("new",)]
        [row] = rows(place.spool, 10)
        assert (row.message, "not known" in row.refused) == ("old", True)

    def test_and_is_sent_again_only_if_that_is_said(self, place: Place) -> None:
        place.keep("old", producer="p", number=4)
        place.keep("bad")
        place.clock.advance(REMEMBERED_S)
        assert place.a.doubt() is None
        place.a.refuse(place.take(), "too large")
        assert retry(place.spool, BROKER) == 1
        assert place.send_all() == [("bad",)]
        assert retry(place.spool, BROKER, unsure=True) == 1
        assert place.send_all() == [("old",)]

    def test_so_is_an_old_batch(self, place: Place) -> None:
        place.keep("a", "b")
        place.take()
        place.clock.advance(REMEMBERED_S)
        assert place.a.doubt() is None
        assert [bool(row.refused) for row in rows(place.spool, 10)] == [True, True]


class TestOneAtATime:
    def test_one_drains(self, place: Place) -> None:
        place.keep("a")
        b = place.drainer("b")
        assert (place.a.acquire(), b.acquire(), b.take(), b.doubt()) == (True, False, None, None)

    def test_who_resigns_lets_another(self, place: Place) -> None:
        b = place.drainer("b")
        place.a.acquire()
        b.resign()
        assert not b.acquire()
        place.a.resign()
        assert b.acquire()

    def test_who_is_not_heard_of_has_ended(self, place: Place) -> None:
        place.keep("a")
        b = place.drainer("b")
        lost = place.take()
        place.clock.advance(LEASE_S - 0.1)
        assert not b.acquire()
        place.clock.advance(0.2)
        assert b.acquire()
        doubt = b.doubt()
        assert doubt is not None
        assert doubt.producer == lost.producer

    def test_who_goes_on_is_not_replaced(self, place: Place) -> None:
        b = place.drainer("b")
        for n in range(5):
            place.keep(f"m{n}")
            place.a.sent(place.take())
            place.clock.advance(LEASE_S - 1)
            assert not b.acquire()

    def test_a_clock_that_was_set_back_locks_nobody_out(self, place: Place) -> None:
        place.a.acquire()
        place.clock.advance(-3600.0)
        assert place.drainer("b").acquire()

    def test_who_wakes_after_another_has_taken_over_drops_nothing(self, place: Place) -> None:
        """It is told that its write had been accepted before, because the other has voided it."""
        place.keep("a", "b")
        late = place.take()
        place.clock.advance(LEASE_S + 1)
        b = place.drainer("b")
        doubt = b.doubt()
        assert doubt is not None
        b.settle(doubt, accepted=False)
        assert place.a.sent(late) == 0
        place.a.refuse(late, "why")
        assert place.a.settle(doubt, accepted=True) == 0
        assert place.send_all(b) == [("a", "b")]

    def test_lines_to_two_brokers_are_two(self, place: Place) -> None:
        other = place.drainer("o", "redis://other/0")
        assert (place.a.acquire(), other.acquire()) == (True, True)


class TestRefused:
    def test_it_stays_and_holds_nobody_up(self, place: Place) -> None:
        place.keep("bad", "good")
        batch = place.a.take(1)
        assert batch is not None
        place.a.refuse(batch, "too large")
        assert place.send_all() == [("good",)]
        [row] = rows(place.spool, 10)
        assert (row.message, row.refused) == ("bad", "too large")

    def test_it_is_tried_again_when_a_person_says_so(self, place: Place) -> None:
        place.keep("bad")
        place.a.refuse(place.take(), "too large")
        place.keep("good")
        assert retry(place.spool, "redis://other/0") == 0
        assert retry(place.spool, BROKER) == 1
        assert place.send_all() == [("good", "bad")]

    def test_or_dropped(self, place: Place) -> None:
        place.keep("a", "b", "c")
        numbers = [row.id for row in rows(place.spool, 10)]
        assert drop(place.spool, [*numbers[:2], 999]) == 2
        assert place.messages() == ["c"]
