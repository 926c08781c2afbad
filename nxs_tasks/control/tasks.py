"""The Celery tasks of the control plane, three lines each. They run in the control worker only."""

from __future__ import annotations

from typing import Any

from nxs_tasks.control.evicting import STEPS
from nxs_tasks.control.jobs import JOBS, run_job
from nxs_tasks.control.workflows import EVICT
from nxs_tasks.runtime import CONTROL_TASKS, runtime_of
from nxs_tasks.store.message import TERM_HEADER


def register(app: Any) -> None:
    """Register one task for each job, and for each step of a workflow."""
    # Not shared: another Celery app in this process has no fleet.
    options = {"bind": True, "shared": False, "ignore_result": True}
    for name in JOBS:
        app.task(_tick(name), name=CONTROL_TASKS + name, **options)
    for name in STEPS:
        app.task(_step(name), name=EVICT + name, **options)


def _tick(name: str) -> Any:
    def tick(self: Any) -> None:
        term = getattr(self.request, TERM_HEADER, None)
        run_job(runtime_of(self.app), name, node=str(self.request.hostname), term=term)

    tick.__name__ = name
    return tick


def _step(name: str) -> Any:
    def step(self: Any, instance: str, epoch: int) -> None:
        if not STEPS[name](runtime_of(self.app), instance, epoch):
            self.request.chain = None  # the rest of the story is not to be told

    step.__name__ = name
    return step
