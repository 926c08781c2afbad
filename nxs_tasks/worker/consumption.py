"""Whether this worker's consumer is really consuming: read from Celery and kombu, never asked.

A worker can be alive, answer pings, and take no work. The sign that counts is that it asks the
broker for work: its channel asks at least every second, unless all slots are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.worker import state

from nxs_tasks.worker.capacity import Capacity

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


def read_consumption(
    worker: Any, queues: Iterable[str], capacity: Capacity, now: float
) -> Consumption:
    """Read the worker in this process; `now` is monotonic, s. Never raises, never waits.

    `queues` are those without which it is of no use to the fleet: its own and the shared one.
    """
    slots = slots_of(worker)
    consuming, asked = _consuming(getattr(worker, "consumer", None), slots, queues, now)
    return Consumption(
        slots=slots,
        running=len(state.active_requests),
        early=_early(),
        waiting=len(state.scheduled_requests),
        consuming=consuming,
        asked_s=asked,
        types=_types(),
        extra=capacity.extra(),
        reserved=capacity.reserved(),
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


def _consuming(
    consumer: Any, slots: int | None, queues: Iterable[str], now: float
) -> tuple[bool | None, float | None]:
    if consumer is None:
        return None, None
    task_consumer = getattr(consumer, "task_consumer", None)
    channel = getattr(task_consumer, "channel", None)
    if task_consumer is None or channel is None:
        return False, None
    if not all(task_consumer.consuming_from(queue) for queue in queues):
        return False, None  # somebody cancelled it by remote control
    if slots is not None and len(state.reserved_requests) >= slots:
        return True, None
    sent_at = getattr(channel, "_brpop_sent_at", None)
    if sent_at is None:
        return None, None
    asked = max(0.0, now - float(sent_at))
    return asked <= LONGEST_PAUSE_S, round(asked, 2)
