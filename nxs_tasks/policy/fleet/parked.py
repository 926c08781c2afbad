"""Which parked tasks can go on: those that a live instance knows now."""

from __future__ import annotations

from collections.abc import Mapping

from nxs_tasks.model.decision import Unpark
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.readiness import knower


def unpark(parked: Mapping[str, int], snapshot: Snapshot) -> list[Unpark]:
    """One decision for each task that is known now; `parked` counts what is parked by task."""
    decisions = []
    for task, count in sorted(parked.items()):
        instance = knower(task, snapshot, snapshot.shared_queue, but="")
        if instance is not None:
            decisions.append(
                Unpark(
                    task=task,
                    instance=instance,
                    reason=f"{instance} knows {task}",
                    evidence={"parked": count},
                )
            )
    return decisions
