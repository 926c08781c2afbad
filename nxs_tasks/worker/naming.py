"""Taking a node name: one living process for each.

A restart under the same name is normal and must not wait. Two living processes with one name are
a mistake that mixes up what each holds, so the second refuses to start. What tells them apart: a
process that is gone has no connection left at the broker; and one that hangs with its connections
open sends no heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import NameTaken
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.state import ENDED
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore

Waiter = Callable[[Callable[[], bool], float, float], bool]


def take_name(
    store: FleetStore,
    instance_id: str,
    identity: str,
    profile: Profile,
    settings: Settings,
    wait: Waiter = wait_until,
) -> int:
    """Take a node name and return the epoch of this process.

    Raises `NameTaken`, `JoinRefused`.
    """
    seen_epoch = store.epoch(instance_id)
    snapshot = store.snapshot(full=True)
    before = snapshot.get(instance_id)
    ours = before is not None and before.identity == identity  # an answer was lost
    if before is not None and not ours and _may_live(before, snapshot.taken_at, settings):
        # Still connected and heard of lately: if it lives, its next heartbeat comes now.
        def beats_on() -> bool:
            seen = store.snapshot().get(instance_id)
            return seen is not None and seen.beat_at != before.beat_at

        if wait(beats_on, 2 * settings.heartbeat_period, 0.2):
            raise NameTaken(
                f"a living worker already has the name {instance_id!r} "
                f"(process {before.identity}, epoch {before.epoch}, {before.state}): "
                "give each worker its own name (celery worker -n NAME@%h, nxs node --name NAME), "
                "or end that process if it is left from before"
            )
    return store.join(
        instance_id,
        identity,
        profile,
        seen_epoch=seen_epoch,
        refused_s=settings.join_refused,
    )


def _may_live(before: Instance, now: float, settings: Settings) -> bool:
    if before.state in ENDED or before.stopped:
        return False
    heard = before.beat_at if before.beat_at is not None else before.since
    if now - heard > settings.silent_after:
        return False
    # Who has announced itself this moment has neither sent a heartbeat nor connected yet.
    newborn = before.beat_at is None and now - before.since <= settings.heartbeat_period
    return newborn or before.connections != 0
