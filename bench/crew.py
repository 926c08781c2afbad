"""Instances as the store knows them, without workers behind them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Load, Profile
from nxs_tasks.model.state import Event, State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore

GIB = 1 << 30
CORES = 8
#: Of the busy, one in so many has one free slot.
FREE_EACH = 10


@dataclass(frozen=True, slots=True)
class Landed:
    """Where submitted tasks are."""

    own: int  # in queues of instances
    shared: int


class Crew:
    """`count` instances that joined and are ACTIVE; `beat` renews all their heartbeats.

    `busy` ones hold as many messages as they have slots, but for one free slot in each ten
    instances, so nearly all tasks have to wait in the shared queue.
    """

    def __init__(
        self,
        store: FleetStore,
        settings: Settings,
        tasks: Sequence[str],
        *,
        count: int,
        slots: int,
        busy: bool,
    ) -> None:
        self._store = store
        self._settings = settings
        self._profile = Profile(
            tasks=frozenset(tasks),
            queues=frozenset({store.shared_queue}),
            versions=(("celery", "5.7.0"), ("nxs", "0.1.0")),
        )
        self._slots = slots
        self._random = random.Random(count)
        self._runs: dict[str, int] = {}
        self._epochs = {f"shop-{n:04}@node{n:04}": 0 for n in range(count)}
        self._held = {
            name: slots - int(number % FREE_EACH == 0) if busy else 0
            for number, name in enumerate(self._epochs)
        }
        self._queues = [
            key
            for instance in self._epochs
            for key in store.wire.queue_keys(store.keys.own_queue(instance))
        ]

    @property
    def free(self) -> int:
        """Free slots of all together while nothing waits."""
        return sum(self._slots - held for held in self._held.values())

    def join(self) -> None:
        """Announce all, and move them to ACTIVE as the lifecycle does."""
        for name in self._epochs:
            self._runs[name] = self._random.randint(500, 5000)
            self._epochs[name] = self._store.join(name, f"{name}/1", self._profile, seen_epoch=0)
            self._hold(name)
        for _ in range(self._settings.join_beats):
            self.beat()
        for name, epoch in self._epochs.items():
            self._store.transition(
                Transition(
                    instance=name,
                    epoch=epoch,
                    source=State.JOINING,
                    target=State.ACTIVE,
                    event=Event.CONFIRMED,
                    reason=f"{self._settings.join_beats} consecutive heartbeats, consuming",
                )
            )

    def _hold(self, name: str) -> None:
        # Placement reads only how many entries there are.
        entries: dict[Any, Any] = {f"tag-{n}": "[]" for n in range(self._held[name])}
        if entries:
            key = self._store.wire.prefix + self._store.keys.inflight(name, self._epochs[name])
            self._store.client.hset(key, mapping=entries)

    def beat(self) -> None:
        """One heartbeat of each, with a load that differs from the last."""
        for name, epoch in self._epochs.items():
            self._runs[name] += self._random.randint(0, 50)
            self._store.heartbeat(
                name,
                epoch,
                self._load(name),
                longest_gap_s=2 * self._settings.heartbeat_period,
                succeeded=self._runs[name],
                failed=self._runs[name] // 100,
                window_days=self._settings.outcome_days,
            )

    def rest(self) -> None:
        """As if no migration had ever been made."""
        pipe = self._store.client.pipeline(transaction=False)
        for name in self._epochs:
            pipe.hdel(self._store.keys.instance(name), "migrated_at", "received_at", "migration")
        pipe.execute()

    def _load(self, name: str) -> Load:
        return Load(
            slots=self._slots,
            running=self._held[name],
            waiting=0,
            queued=0,
            load_avg=round(self._random.uniform(0.1, 0.6) * CORES, 2),
            cores=CORES,
            memory_used=int(self._random.uniform(0.3, 0.6) * 32 * GIB),
            memory_total=32 * GIB,
            latency_ms=round(self._random.uniform(0.2, 3.0), 3),
            consuming=True,
            asked_s=0.1,
        )

    def landed(self) -> Landed:
        """Counts what waits, by the server's own lengths."""
        return Landed(
            own=self._depth(self._queues),
            shared=self._depth(self._store.wire.queue_keys(self._store.shared_queue)),
        )

    def _depth(self, keys: Sequence[str]) -> int:
        pipe = self._store.client.pipeline(transaction=False)
        for key in keys:
            pipe.llen(key)
        return sum(pipe.execute())

    def empty(self) -> None:
        """Remove what waits."""
        shared = self._store.wire.queue_keys(self._store.shared_queue)
        self._store.client.delete(*self._queues, *shared)
