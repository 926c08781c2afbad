"""The app of the bench `delayed`: one task that notes by how much it is late.

Run in a process of its own: BENCH_BROKER is its server, BENCH_FLEET says whether with the line.
"""

from __future__ import annotations

import os

from celery import Celery

from nxs_tasks import Fleet
from nxs_tasks.store import connect

URL = os.environ["BENCH_BROKER"]
#: List: by how much each task was late, s, by the server's clock.
LATE = "late"
NOTE = """
local time = redis.call('TIME')
local late = tonumber(time[1]) + tonumber(time[2]) / 1e6 - tonumber(ARGV[1])
return redis.call('RPUSH', KEYS[1], string.format('%.6f', late))
"""

app = Celery("due", broker=URL, set_as_current=False)
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

_note = connect(URL).register_script(NOTE)


def _write_down(due: float) -> None:
    """Write down how late it is."""
    _note(keys=[LATE], args=[repr(due)])


note = app.task(_write_down, name="due.note", shared=False)
