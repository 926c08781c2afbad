"""What a worker's gate asks the broker about the intents of people, message by message."""

from __future__ import annotations

from nxs_tasks.store import FleetStore
from nxs_tasks.store.intents import Intents


class WorkerIntents:
    """Asked only if the claim script says that something is cancelled or paused.

    Nothing is remembered here: each answer is one round trip, and true at that moment, also right
    after a reconnect. Raises `BrokerError`.
    """

    def __init__(self, store: FleetStore) -> None:
        self._intents = Intents(store)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether a task is not to run."""
        return self._intents.is_cancelled(task_id)

    def is_paused(self, task: str) -> bool:
        """Whether tasks of that name wait."""
        return self._intents.is_paused("task", task)
