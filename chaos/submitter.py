"""The process that submits, at a steady rate, until it is told to stop (SIGTERM).

It writes what it tries and what is accepted into a ledger of its own. If too much is accepted and
not done, it pauses, so that the rate is the one that the workers can hold.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from chaos.ledger import ACCEPTED, END, REFUSED, TRIED, Ledger, Tail
from chaos.workload import Job, jobs
from nxs_tasks.clock import SYSTEM

#: Between two batches, s.
TICK_S = 0.01
#: What was not submitted while the server was away is not made up for, but for so much, s.
CATCH_UP_S = 0.25
#: Accepted and not done, in seconds of submission, before it pauses.
BACKLOG_S = 8.0
#: Between two looks at what is done, s.
LOOK_S = 0.2
NAME = "submitter"


class Submitter:
    """Submits jobs through one app."""

    def __init__(self, app: Any, work: Iterator[Job], rate: float, sent: str, worked: str) -> None:
        self._app = app
        self._jobs = work
        self._rate = rate
        self._ledger = Ledger(sent)
        # Also what it has submitted in earlier lives.
        self._sent, self._worked = Tail(sent), Tail(worked)
        self._accepted = 0
        self._done: set[str] = set()
        self._looked_at = 0.0
        self._behind = False

    def run(self, stop: threading.Event) -> None:
        """Submit until told to stop."""
        credit, last = 0.0, SYSTEM.monotonic()
        while not stop.wait(TICK_S):
            now = SYSTEM.monotonic()
            credit = min(credit + (now - last) * self._rate, self._rate * CATCH_UP_S)
            last = now
            if self._is_behind(now):
                continue
            while credit >= 1 and not stop.is_set():
                credit -= 1
                self._submit()

    def _is_behind(self, now: float) -> bool:
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._accepted += sum(line.kind == ACCEPTED for line in self._sent.lines())
            self._done.update(line.task for line in self._worked.lines() if line.kind == END)
            self._behind = self._accepted - len(self._done) > BACKLOG_S * self._rate
        return self._behind

    def _submit(self) -> None:
        job = next(self._jobs)
        self._ledger.write(TRIED, job.id, 0, NAME, "-")
        try:
            self._app.send_task(job.name, (job.seconds,), task_id=job.id, **job.options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it was not accepted
            self._ledger.write(REFUSED, job.id, 0, NAME, type(error).__name__)
        else:
            self._ledger.write(ACCEPTED, job.id, 0, NAME, "-")


def main(life: int, seed: int, rate: float, sent: str, worked: str) -> None:
    """Run as a process of its own, for the app of `CHAOS_APP`. Each life has work of its own."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    app = import_module(os.environ["CHAOS_APP"]).app
    Submitter(app, jobs(f"{seed} {life}"), rate, sent, worked).run(stop)
    app.close()
