"""Where a running task may go on: for one that can be stopped at a checkpoint."""

from __future__ import annotations

from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State


def why_not_to(target: str, task: str, holder: str, queue: str, snapshot: Snapshot) -> str:
    """Why a task that `holder` runs cannot go on with `target`; "" if it can.

    `queue` is the one that the task was sent to by name, or the shared one.
    """
    if target == holder:
        return "it runs there already"
    instance = snapshot.get(target)
    if instance is None:
        return "there is no such instance"
    if instance.state is not State.ACTIVE:
        return f"is {instance.state}, not ACTIVE"
    return _why_unfit(instance, task, queue, snapshot)


def elsewhere(task: str, holder: str, queue: str, snapshot: Snapshot) -> tuple[str, ...]:
    """Who could take a task from `holder`: ids, the shortest line for each slot first."""
    fit = [
        (_line_per_slot(i), i.id)
        for i in snapshot.instances
        if not why_not_to(i.id, task, holder, queue, snapshot)
    ]
    return tuple(id_ for _, id_ in sorted(fit))


def _why_unfit(instance: Instance, task: str, queue: str, snapshot: Snapshot) -> str:
    if instance.stopped:
        return "its process has stopped"
    if instance.load.consuming is False:
        return "its consumer takes no work"
    if instance.profile is None:
        return "its registered tasks are unknown"
    if task not in instance.profile.tasks:
        return instance.profile.unable.get(task) or f"does not know {task}"
    if queue != snapshot.shared_queue and queue not in instance.profile.queues:
        return f"does not consume {queue}, the queue that the task was sent to"
    return ""


def _line_per_slot(instance: Instance) -> float:
    line = (instance.held or 0) + (instance.queued or 0)
    return line / max(1, instance.load.slots or 1)
