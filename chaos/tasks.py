"""The app whose tasks write the ledger: plain Celery, late acks. It imports nothing of NXS."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from typing import Any

from celery import Celery

from chaos.ledger import END, RETRIED, START, Ledger

URL = os.environ["CHAOS_BROKER"]

app = Celery("chaos", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("CHAOS_TRANSPORT", "{}")),
)
_ledger: Ledger | None = None


def _write(kind: str, task: Any, nonce: str) -> None:
    global _ledger
    if _ledger is None:
        _ledger = Ledger(os.environ["CHAOS_LEDGER"])
    request = task.request
    _ledger.write(kind, request.id, request.retries, os.environ["CHAOS_HOLDER"], nonce)


@app.task(name="chaos.work", bind=True)
def work(self: Any, seconds: float) -> str:
    """Work for so long; returns the nonce of this execution."""
    nonce = secrets.token_hex(6)
    _write(START, self, nonce)
    time.sleep(seconds)  # noqa: TID251 - what a task of a user would do
    _write(END, self, nonce)
    return nonce


@app.task(name="chaos.again", bind=True, max_retries=1)
def again(self: Any, seconds: float) -> str:
    """The same, but it works at the second attempt only."""
    nonce = secrets.token_hex(6)
    _write(START, self, nonce)
    time.sleep(seconds)  # noqa: TID251
    if self.request.retries == 0:
        _write(RETRIED, self, nonce)
        raise self.retry(countdown=0)
    _write(END, self, nonce)
    return nonce


@app.task(name="chaos.poison", bind=True)
def poison(self: Any) -> None:
    """Kill the worker that runs it, with all its pool, as a machine does that has no memory."""
    _write(START, self, secrets.token_hex(6))
    os.killpg(0, signal.SIGKILL)
