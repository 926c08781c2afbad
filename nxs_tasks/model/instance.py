"""What is known about one instance: its profile, its load, its record in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.state import State

#: Shortest mean of a task that is believed, s.
SHORTEST_S = 0.001


@dataclass(frozen=True, slots=True)
class Profile:
    """What an instance can run. Changes only with a new process, so it is stored once."""

    tasks: frozenset[str]
    queues: frozenset[str]
    shared: str = ""  # the default queue of its app; "" if it does not say
    tags: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    traits: Mapping[str, Traits] = field(default_factory=dict)  # of tasks that declare any
    memory: int | None = None  # bytes for tasks that declare how much they take
    unable: Mapping[str, str] = field(default_factory=dict)  # tasks it has, and why not runs

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; sorted, so that equal profiles have equal text."""
        return {
            "tasks": sorted(self.tasks),
            "queues": sorted(self.queues),
            "shared": self.shared,
            "tags": list(self.tags),
            "versions": dict(self.versions),
            "traits": {name: self.traits[name].as_dict() for name in sorted(self.traits)},
            "memory": self.memory,
            "unable": dict(sorted(self.unable.items())),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Profile:
        """The inverse of `as_dict`."""
        return cls(
            tasks=frozenset(data["tasks"]),
            queues=frozenset(data["queues"]),
            shared=str(data.get("shared", "")),
            tags=tuple(data["tags"]),
            versions=tuple(sorted(data["versions"].items())),
            traits={k: Traits.from_dict(v) for k, v in (data.get("traits") or {}).items()},
            memory=data.get("memory"),
            unable=dict(data.get("unable") or {}),
        )


def _is_number(value: Any) -> bool:
    """What JSON may hold beside a number (text, NaN) is unknown to us."""
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flapping:
    """How often an instance was lost lately, and for how long it is withheld for that."""

    losses: tuple[float, ...] = ()  # server times of its last unplanned losses, s, oldest first
    level: int = 0  # which of the back-offs it got last; 0 = none counts against it
    level_at: float = 0.0  # server time of the loss for which it got it, s
    until: float = 0.0  # server time until which it is withheld, s; 0 = never was
    why: str = ""


#: What is known of most instances.
STEADY = Flapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one heartbeat says. A value that could not be read is `None`, never zero."""

    slots: int | None = None
    running: int | None = None  # tasks in the pool now
    early: int | None = None  # of these, acknowledged when they started
    waiting: int | None = None  # tasks held for a later time (ETA, countdown)
    queued: int | None = None  # depth of the instance's own queue
    load_avg: float | None = None  # 1 minute
    cores: int | None = None
    memory_used: int | None = None  # bytes
    memory_total: int | None = None  # bytes
    latency_ms: float | None = None  # round trip to the broker
    consuming: bool | None = None  # the consumer is asking for work, or is full
    asked_s: float | None = None  # since the consumer last asked the broker for work
    mean_s: float | None = None  # how long a task took here lately, on average
    extra: int | None = None  # slots beyond one for each task that the running ones declare
    reserved: int | None = None  # bytes that the running ones declare
    types: Mapping[str, int] = field(default_factory=dict)  # tasks in the pool now, by name
    keys: tuple[str, ...] = ()  # affinity keys of what ran here, the newest first
    unhealthy: str = ""  # what is wrong with how tasks go here; "" = nothing is known to be
    kept: str = ""  # token of a message that waits there until there is room for it
    progress: str = ""  # of a process that is not ready yet, in its own words

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Load:
        """From the JSON of a heartbeat; fields of a newer NXS are ignored."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        types, keys = known.pop("types", None), known.pop("keys", None)
        words = {k: known.pop(k, None) for k in ("unhealthy", "progress", "kept")}
        numbers: dict[str, Any] = {k: v for k, v in known.items() if _is_number(v)}
        if isinstance(types, dict):
            numbers["types"] = {k: v for k, v in types.items() if _is_number(v)}
        if isinstance(keys, list):
            numbers["keys"] = tuple(key for key in keys if isinstance(key, str))
        numbers |= {k: v for k, v in words.items() if isinstance(v, str)}
        return cls(**numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance as the store knows it at the time of a snapshot."""

    id: str  # the Celery node name
    state: State
    epoch: int  # rises with every process that takes the name
    since: float  # server time of the last transition, s
    beat_at: float | None  # server time of the last heartbeat, s
    beats: int  # consecutive heartbeats without a miss
    load: Load
    profile: Profile | None
    succeeded: int = 0  # in the reliability window
    failed: int = 0
    inflight: int | None = None  # messages it holds, read live
    queued: int | None = None  # depth of its own queue, read live
    connections: int | None = None  # of its current process, as the broker sees; None = unknown
    stopped: bool = False  # its process said that it is finished
    identity: str = ""  # host and pid of the process
    migrated_at: float | None = None  # server time of the last migration that it took part in, s
    received_at: float | None = None  # server time of the last one that it received from, s
    verdict: str = ""  # the last decision of the state machine, "nothing" included
    ejected_until: float = 0.0  # server time until which it takes no work, s; 0 = it does
    ejected_why: str = ""
    ejections: int = 0  # that counted against it at the last one
    sick: int = 0  # consecutive heartbeats that told of something unhealthy
    well: int = 0  # consecutive heartbeats that told of nothing
    deaf: int = 0  # consecutive heartbeats that told of a consumer that takes no work
    progress_at: float | None = None  # server time at which its progress changed last, s
    flapping: Flapping = STEADY
    cordoned: str = ""  # who has taken it out of service, and why; "" = it is in service

    @property
    def held(self) -> int | None:
        """Tasks that take up a slot, now or when their time comes; None if it cannot be known.

        Prefetch is off, so a held message runs, or waits for its ETA where nobody else can take
        it. A task that acknowledged early is held by nobody any more and runs all the same.
        """
        if self.inflight is None:
            return self.load.running
        return self.inflight + (self.load.early or 0) + (self.load.extra or 0)

    @property
    def busy(self) -> int | None:
        """Slots in use: what is held, less what only waits for its time."""
        return None if self.held is None else max(0, self.held - (self.load.waiting or 0))
