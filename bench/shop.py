"""The application that is submitted to: the same tasks and settings, with a fleet or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals

from nxs_tasks import Fleet
from nxs_tasks.clock import Clock

TASKS = tuple(f"shop.tasks.work_{n:02}" for n in range(50))


@dataclass(frozen=True, slots=True)
class Shop:
    """A Celery application and its tasks."""

    app: Any
    tasks: Sequence[Any]


@contextmanager
def plain_shop(url: str) -> Iterator[Shop]:
    """Stock Celery. Results are ignored, so that a publish is all that `delay()` does."""
    app = Celery("shop", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
    )
    try:
        yield Shop(app, [app.task(_work, name=name, shared=False) for name in TASKS])
    finally:
        app.close()


@contextmanager
def fleet_shop(url: str, clock: Clock) -> Iterator[tuple[Shop, Fleet]]:
    """The same, and the one line. It is unplugged: see `plug`."""
    with plain_shop(url) as shop:
        fleet = Fleet(shop.app, clock=clock)
        unplug(fleet)
        try:
            yield shop, fleet
        finally:
            unplug(fleet)
            fleet.submitter.flush()


def plug(fleet: Fleet) -> None:
    """Let the fleet hear of publishes, as it does in any process of its own.

    The signal belongs to the process: left on, it would call NXS for the peer's publishes too.
    """
    signals.before_task_publish.connect(fleet.submitter.on_publish, weak=False)


def unplug(fleet: Fleet) -> None:
    """The opposite of `plug`."""
    signals.before_task_publish.disconnect(fleet.submitter.on_publish)


def _work(order: int, how: str) -> None:
    """Never runs: nobody consumes."""
