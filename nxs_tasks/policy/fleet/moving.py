"""Where a running task may go on: for one that can be stopped at a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.readiness import knows, line_per_slot, unready
from nxs_tasks.settings import Settings


def why_not_to(
    target: str, task: str, holder: str, queue: str, snapshot: Snapshot, settings: Settings
) -> str:
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
    if instance.profile is not None and not knows(instance, task):
        return instance.profile.unable.get(task) or f"does not know {task}"
    return unready(instance, replace(snapshot, shared_queue=queue), settings)


def elsewhere(
    task: str, holder: str, queue: str, snapshot: Snapshot, settings: Settings
) -> tuple[str, ...]:
    """Who could take a task from `holder`: ids, the shortest line for each slot first."""
    fit: list[Instance] = [
        i
        for i in snapshot.instances
        if not why_not_to(i.id, task, holder, queue, snapshot, settings)
    ]
    return tuple(i.id for i in sorted(fit, key=lambda i: (line_per_slot(i, 0), i.id)))
