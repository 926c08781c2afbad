"""The order of queues: own first, the others in turn."""

from __future__ import annotations

from kombu.utils.scheduling import cycle_by_name

from nxs_tasks.celery_settings import TRANSPORT
from nxs_tasks.worker.order import OwnFirst


def test_the_own_queue_stays_first_and_the_others_take_turns() -> None:
    cycle = OwnFirst()
    cycle.update(["own", "a", "b"])
    seen = []
    for used in ("a", "own", "b", "a"):
        seen.append(cycle.consume(3)[:])
        cycle.rotate(used)
    assert seen == [["own", "a", "b"], ["own", "b", "a"], ["own", "b", "a"], ["own", "a", "b"]]


def test_a_queue_that_is_not_consumed_any_more_changes_nothing() -> None:
    cycle = OwnFirst()
    cycle.update(["own", "a"])
    cycle.rotate("gone")
    assert cycle.consume(2) == ["own", "a"]


def test_kombu_finds_it_by_the_name_in_the_settings() -> None:
    assert cycle_by_name(TRANSPORT["queue_order_strategy"]) is OwnFirst
