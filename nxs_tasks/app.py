"""A ready-made Celery app around a fleet, for `celery -A nxs_tasks.app …` and the `nxs` command.

It knows no tasks of users: it is for looking at a fleet, for control workers, and for sending by
name. The broker is `NXS_BROKER_URL`, the result backend `NXS_RESULT_BACKEND` or the same.
"""

from __future__ import annotations

import os

from celery import Celery

from nxs_tasks.fleet import Fleet

DEFAULT_URL = "redis://localhost:6379/0"

broker = os.environ.get("NXS_BROKER_URL", DEFAULT_URL)
app = Celery("nxs", broker=broker, backend=os.environ.get("NXS_RESULT_BACKEND", broker))
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)
fleet = Fleet(app)
