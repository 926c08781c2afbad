"""One call of `submit()` or `submit_many()`, understood: its plan, its times, its parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery._state import get_current_worker_task

from nxs_tasks.submission import times
from nxs_tasks.submission.plan import KEPT, Plan, Planner
from nxs_tasks.submission.times import Times

NOTHING: Mapping[str, Any] = {}
#: Options that differ from one call to the next: no plan is made for each of their values.
VARYING = ("countdown", "eta", "expires", "parent_id", "root_id", "task_id")


@dataclass(slots=True, eq=False)
class Call:
    """What was asked for."""

    plan: Plan
    options: Mapping[str, Any]  # as the caller gave them
    times: Times
    task_id: str | None
    root: Any  # id of the task that began it all; None = each is its own
    parent: Any  # id of the task that submits; None = no task does
    worker_task: Any  # the task that submits, in a worker
    celery: str  # why only Celery can send it; "" if it need not
    #: Its encoder for no keyword arguments, in the thread that used it last.
    plainly: Any = None


class Calls:
    """Understands the calls of one app."""

    def __init__(self, app: Any, planner: Planner) -> None:
        self._app = app
        self._planner = planner
        #: What a call without options and outside of any task comes to.
        self._usual: dict[Plan, Call] = {}

    def understand(self, task: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Call:
        """Raises `OptionError` for a task, an option or a value that is of no use."""
        target = self._planner.target(task)
        worker_task = get_current_worker_task()
        if not options and worker_task is None:
            plan = self._planner.plan(target, NOTHING, args, kwargs)
            return self._usual.get(plan) or self._usual_made(plan)
        varying = {name: options[name] for name in VARYING if name in options}
        given = {name: value for name, value in options.items() if name not in varying}
        plan = self._planner.plan(target, given, args, kwargs)
        return self._made(plan, options, varying, worker_task)

    def _usual_made(self, plan: Plan) -> Call:
        call = self._made(plan, NOTHING, NOTHING, None)
        if plan.expires is None:
            if len(self._usual) >= KEPT:
                self._usual.clear()
            self._usual[plan] = call
        return call

    def _made(
        self, plan: Plan, options: Mapping[str, Any], varying: Mapping[str, Any], worker_task: Any
    ) -> Call:
        root, parent = varying.get("root_id"), varying.get("parent_id")
        if worker_task is not None:
            request = worker_task.request
            root = root or request.root_id or request.id
            parent = parent or request.id
        celery = plan.celery or _why_celery_now(plan, worker_task)
        return Call(
            plan=plan,
            options=options,
            times=times.NONE if celery else self._times(plan, varying),
            task_id=varying.get("task_id"),
            root=root or None,
            parent=parent or None,
            worker_task=worker_task,
            celery=celery,
        )

    def _times(self, plan: Plan, varying: Mapping[str, Any]) -> Times:
        if not varying and plan.expires is None:
            return times.NONE
        countdown, eta = varying.get("countdown"), varying.get("eta")
        return times.resolve(self._app, countdown, eta, varying.get("expires", plan.expires))


def _why_celery_now(plan: Plan, worker_task: Any) -> str:
    if plan.inherits and worker_task is not None:
        return "it takes the priority of the task that submits it"
    if plan.eager:
        return "task_always_eager is on, so it has been run at once"
    return ""
