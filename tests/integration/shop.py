"""The app of the live tests: a user's Celery app, without the line. It imports nothing of NXS."""

from __future__ import annotations

import os
import time

from celery import Celery

URL = os.environ["SHOP_BROKER"]

app = Celery("shop", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)


@app.task(name="shop.nap")
def nap(seconds: float) -> tuple[float, float]:
    """Work for so long; returns start and end, wall time."""
    start = time.time()  # noqa: TID251 - what a task of a user would do
    time.sleep(seconds)  # noqa: TID251
    return start, time.time()  # noqa: TID251


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="shop.fail")
def fail() -> None:
    raise ValueError("as asked")


@app.task(name="shop.flaky", bind=True, max_retries=3)
def flaky(self, fails: int) -> int:  # type: ignore[no-untyped-def]
    """Fails so often, is retried, and returns the number of the run that worked."""
    if self.request.retries < fails:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(name="shop.video", queue="video")
def video() -> str:
    return "seen"
