"""To which queue a message goes that is taken from its holder."""

from __future__ import annotations

from collections.abc import Callable

from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.readiness import home
from nxs_tasks.store.store import FleetStore


def lasting(store: FleetStore, queue: str) -> str:
    """Where a message from a queue can always be given back: an own queue may be nobody's by then.

    Without a queue it is the shared one.
    """
    own = queue.startswith(store.keys.own_queue(""))
    return store.shared_queue if own or not queue else queue


def homes(store: FleetStore, snapshot: Snapshot | None = None) -> Callable[[str, str], str]:
    """`(task, queue it came from) → queue`.

    A user's own queue stays the message's queue. What came from the queue of an instance, or from
    the shared one, goes where `policy.fleet.placement.home` says; if that is nowhere, to the shared
    queue, whose takers put aside what they do not know.
    """
    seen = store.snapshot() if snapshot is None else snapshot
    own = store.keys.own_queue

    def where(task: str, queue: str) -> str:
        if lasting(store, queue) != store.shared_queue:
            return queue
        return home(task, seen, own, store.shared_queue) or store.shared_queue

    return where
