"""Whether this worker's consumer is really consuming: read from Celery and kombu, never asked.

A worker can be alive, answer pings, and take no work. The sign that counts is that it asks the
broker for work: its channel asks at least every second, unless all slots are taken. One whose slots
are all taken need not ask, so nothing is said against it; it is seen when a slot is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.worker import state

from nxs_tasks.worker.capacity import Capacity
from nxs_tasks.worker.strays import rate_limited

#: The channel asks every second; five in a row missed is not chance.
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What the pool and the consumer are doing. None = could not be read."""

    slots: int | None
    running: int | None
    early: int | None
    waiting: int | None
    consuming: bool | None
    asked_s: float | None
    types: Mapping[str, int]  # of what runs, by name
    extra: int = 0  # slots beyond one for each task
    reserved: int = 0  # bytes that what runs declares
    full: bool = False  # every slot is taken
    missing: frozenset[str] = frozenset()  # queues that it has to consume, and does not


def read_consumption(
    worker: Any, queues: Iterable[str], capacity: Capacity, now: float
) -> Consumption:
    """Read the worker in this process; `now` is monotonic, s. Never raises, never waits.

    `queues` are those without which it is of no use to the fleet: its own and the shared one.
    """
    slots, consumer = slots_of(worker), getattr(worker, "consumer", None)
    full = slots is not None and _in_hand(worker, slots) >= slots
    missing = _missing(consumer, queues)
    asked = _asked_s(consumer, now)
    return Consumption(
        slots=slots,
        running=len(state.active_requests),
        early=_early(),
        waiting=len(state.scheduled_requests),
        consuming=_consuming(full, missing, asked),
        asked_s=None if full else asked,
        types=_types(),
        extra=capacity.extra(),
        reserved=capacity.reserved(),
        full=full,
        missing=missing or frozenset(),
    )


def slots_of(worker: Any) -> int | None:
    """How many tasks its pool runs at a time; None if it does not say."""
    # The same number that Celery's own "prefetch off" compares with.
    pool = getattr(worker, "pool", None)
    limit = getattr(worker, "max_concurrency", None) or getattr(pool, "num_processes", None)
    return int(limit) if limit else None


def _early() -> int | None:
    try:
        return sum(bool(request.acknowledged) for request in list(state.active_requests))
    except RuntimeError:
        return None  # the set changed while it was read


def _types() -> Mapping[str, int]:
    try:
        return Counter(str(request.name) for request in list(state.active_requests))
    except RuntimeError:
        return {}  # the set changed while it was read


def _in_hand(worker: Any, slots: int) -> int:
    """Tasks that take up a slot, or a place in Celery's prefetch: it asks for no more then."""
    try:
        return len(state.reserved_requests) + len(rate_limited(worker))
    except RuntimeError:
        return slots  # they changed while they were read: it is at work


def _missing(consumer: Any, queues: Iterable[str]) -> frozenset[str] | None:
    """Which of the queues are not consumed; None if that cannot be known."""
    if consumer is None:
        return None
    task_consumer = getattr(consumer, "task_consumer", None)
    channel = getattr(task_consumer, "channel", None)
    if task_consumer is None or channel is None:
        return frozenset(queues)
    # Remote control cancels with the one, who has the channel in hand with the other.
    active = set(getattr(channel, "active_queues", None) or ())
    return frozenset(q for q in queues if not (task_consumer.consuming_from(q) and q in active))


def _asked_s(consumer: Any, now: float) -> float | None:
    channel = getattr(getattr(consumer, "task_consumer", None), "channel", None)
    sent_at = getattr(channel, "_brpop_sent_at", None)
    return None if sent_at is None else round(max(0.0, now - float(sent_at)), 2)


def _consuming(full: bool, missing: frozenset[str] | None, asked_s: float | None) -> bool | None:
    if missing is None:
        return None
    if full:
        return True
    if missing:
        return False
    return None if asked_s is None else asked_s <= LONGEST_PAUSE_S
