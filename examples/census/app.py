"""The Celery application of the census: stock Celery, and the one line that makes it a fleet."""

from __future__ import annotations

import os

from celery import Celery

from nxs_tasks.fleet import Fleet

BROKER = os.environ.get("NXS_BROKER_URL", "redis://127.0.0.1:6379/0")
BACKEND = os.environ.get("NXS_RESULT_BACKEND", BROKER)

app = Celery("census", broker=BROKER, backend=BACKEND, include=["examples.census.tasks"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)

fleet = Fleet(app)
