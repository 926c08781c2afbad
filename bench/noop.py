"""The app of the bench `worker`: one task that does nothing, with the durability of a fleet.

Run in a process of its own: BENCH_BROKER is its server, BENCH_FLEET says whether with the line.
"""

from __future__ import annotations

import os

from celery import Celery

from nxs_tasks import Fleet

app = Celery("noop", broker=os.environ["BENCH_BROKER"], set_as_current=False)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
if os.environ.get("BENCH_FLEET"):
    fleet = Fleet(app)


def _nothing() -> None:
    """Do nothing."""


nothing = app.task(_nothing, name="noop.nothing", shared=False)
