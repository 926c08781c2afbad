"""What waits for an instance that is out of service goes to others; what it runs is its own.

An instance that shuts down, is silent or is gone is the business of the lifecycle.
"""

from __future__ import annotations

from nxs_tasks.model.decision import Release
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import PLACEABLE, State

#: Where an instance may be cordoned and the lifecycle leaves what waits for it where it is.
IN_SERVICE = PLACEABLE | {State.JOINING}


def clear_cordoned(snapshot: Snapshot) -> list[Release]:
    """One decision for each cordoned instance for which something waits that others may take."""
    return [
        release_of(i, snapshot)
        for i in snapshot.instances
        if i.cordoned and i.state in IN_SERVICE and i.queued
    ]


def release_of(instance: Instance, snapshot: Snapshot) -> Release:
    """Give what waits for an instance to others."""
    return Release(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        # Of its app, not of the app whose control worker happens to run this.
        target=(instance.profile and instance.profile.shared) or snapshot.shared_queue,
        reason=f"{instance.queued} task(s) wait for an instance that is cordoned "
        f"{instance.cordoned}",
        evidence={"queued": instance.queued, "held": instance.inflight},
    )
