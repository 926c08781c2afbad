"""An app whose tasks submit others while the test does something to the broker.

Each task writes into the ledger what it does, one line at a time.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM, wait_until

URL = os.environ["SHOP_BROKER"]
PATIENCE_S = 120.0

app = Celery("relay", broker=URL, backend=URL)
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
fleet = Fleet(app)


def note(ledger: str, line: str) -> None:
    with Path(ledger).open("a") as file:
        file.write(f"{line}\n")


def wait_for(flag: str) -> None:
    if not wait_until(Path(flag).exists, PATIENCE_S):
        raise TimeoutError(flag)


@app.task(name="relay.last", ignore_result=True)
def last(ledger: str, what: str) -> None:
    note(ledger, f"ran {what}")


@app.task(name="relay.submit", ignore_result=True)
def submit(ledger: str, flag: str) -> None:
    """Submits when the flag is there, and notes how long that took."""
    note(ledger, "waiting submit")
    wait_for(flag)
    before = SYSTEM.monotonic()
    last.delay(ledger, "submitted")
    note(ledger, f"took {SYSTEM.monotonic() - before}")


@app.task(name="relay.again", bind=True, ignore_result=True)
def again(self, ledger: str, flag: str) -> None:  # type: ignore[no-untyped-def]
    """Is retried when the flag is there."""
    if self.request.retries:
        note(ledger, "ran again")
        return
    note(ledger, "waiting again")
    wait_for(flag)
    raise self.retry(countdown=0)


@app.task(name="relay.first", ignore_result=True)
def first(ledger: str, flag: str) -> None:
    """The first of a chain."""
    note(ledger, "waiting first")
    wait_for(flag)
