"""Whose messages are given to others: those of every process that is no longer part of the fleet.

A process holds under its instance's name and its own epoch. It is part of the fleet if the
instance's record has that epoch and has not ended. That leaves: the process of an instance that is
GONE or FAILED; the one before the process that has the name now; and one whose record is no more.
"""

from __future__ import annotations

from nxs_tasks.model.decision import Rescue
from nxs_tasks.model.holder import Holder
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED


def rescue(snapshot: Snapshot) -> list[Rescue]:
    """One decision for each process that is gone, also for one that holds nothing any more."""
    decisions = []
    for holder in snapshot.holders:
        reason = why_gone(holder, snapshot)
        if reason:
            decisions.append(
                Rescue(
                    instance=holder.instance,
                    epoch=holder.epoch,
                    held=holder.held,
                    reason=reason,
                    evidence={"held": holder.held},
                )
            )
    return decisions


def why_gone(holder: Holder, snapshot: Snapshot) -> str:
    """Why a process is no longer part of the fleet; "" if it is."""
    instance = snapshot.get(holder.instance)
    if instance is None:
        return "there is no record of its instance"
    if instance.epoch != holder.epoch:
        return f"its name belongs to a process with epoch {instance.epoch}"
    if instance.state in ENDED:
        return f"its instance is {instance.state}"
    return ""
