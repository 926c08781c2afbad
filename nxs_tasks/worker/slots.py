"""Slots of the pool that are taken by a message which then could not be started.

Celery counts a request as reserved, takes a slot for it, and files a job for it, before it does
what may fail. If it fails, all three stay for ever: a worker with one slot would take no work any
more, and a message that could not be put aside either would count as known here.
"""

from __future__ import annotations

from typing import Any

from celery.worker import state


def free_slot(worker: Any, message: Any) -> None:
    """Undo what Celery reserved for `message` before it raised. Reads what Celery has."""
    for request in list(state.reserved_requests):
        if request.message is not message:
            continue
        state.task_ready(request)
        _forget_job(worker.pool, request.id)
        if worker.process_task == worker._process_task_sem:
            worker.semaphore.release()


def _forget_job(pool: Any, task_id: str) -> None:
    jobs = getattr(getattr(pool, "_pool", None), "_cache", None) or {}
    for job in list(jobs.values()):
        if job.correlation_id == task_id and not job.accepted():
            job.discard()
