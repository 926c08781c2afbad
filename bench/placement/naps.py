"""The app of S2: tasks that sleep, and note when. The same for all sides but what is compared."""

from __future__ import annotations

import os
from threading import Event
from typing import Any

from celery import Celery

from nxs_tasks.clock import SYSTEM
from nxs_tasks.store import connect

#: Nothing is lost when a worker dies, and no worker takes more than it has slots for.
CAREFUL = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
}
#: Name of a kind → its settings. "default" is what Celery does if nobody says anything.
KINDS: dict[str, dict[str, Any]] = {"NXS": CAREFUL, "celery": CAREFUL, "default": {}}

#: List: what became of each task, as `number started ended`.
NOTED = "noted"


def make(url: str, kind: str) -> Celery:
    """An app on a server."""
    app = Celery("naps", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        **KINDS[kind],
    )
    return app


def nap_of(app: Celery) -> Any:
    """Its one task."""
    clients: dict[int, Any] = {}

    def nap(number: int, seconds: float) -> None:
        """Sleep, and note it."""
        started = SYSTEM.now()
        Event().wait(seconds)
        # One connection for each process: the pool forks after this module was loaded.
        client = clients.get(os.getpid()) or clients.setdefault(
            os.getpid(), connect(app.conf.broker_url)
        )
        client.rpush(NOTED, f"{number} {started!r} {SYSTEM.now()!r}")

    return app.task(nap, name="naps.nap", shared=False)
