"""What people want of the fleet, kept in the broker until they take it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What can be paused.
Kind = Literal["queue", "task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing is taken from a queue, or no task of a name is started."""

    kind: Kind
    name: str
    since: float | None  # server time, s; None where somebody wrote it by hand
    by: str  # user@host
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """One task that will not run."""

    task_id: str
    at: float | None  # server time, s
    by: str
    until: float  # server time, s, when this may be forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """Every intent that holds now."""

    pauses: tuple[Pause, ...]
    cancelled: int  # how many ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which tasks are meant: those with one of the ids, the names or the groups."""

    ids: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.ids or self.tasks or self.groups)

    def matches(self, task_id: str, task: str, group: str) -> bool:
        """Whether a task is meant."""
        return task_id in self.ids or task in self.tasks or group in self.groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A task that a process holds: it runs, or is about to."""

    task_id: str
    task: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """What a cancellation found, and what became of it. Places are `queue NAME`, `shelf NAME`."""

    dry_run: bool = False
    #: Taken out of Redis, by place: these will not run, whoever consumes.
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    #: Left where they are, by place, and not run when a worker meets them: parts of a chord, which
    #: only a worker can tell of it, and what is in quarantine.
    left: Mapping[str, int] = field(default_factory=dict)
    #: Already begun. Not interrupted unless told so, and not run again if their holder dies.
    running: tuple[Running, ...] = ()
    #: Ids that a worker took while they were looked for, and does not hold any more.
    missed: tuple[str, ...] = ()
    #: Ids that are nowhere, with the state of their result ("" = unknown).
    nowhere: Mapping[str, str] = field(default_factory=dict)
    #: Ids that had been cancelled before.
    before: tuple[str, ...] = ()
    terminated: bool = False
    #: Why some results do not say REVOKED yet; "" if all do.
    untold: str = ""

    @property
    def found(self) -> int:
        """How many tasks were found."""
        waiting = sum(self.withdrawn.values()) + sum(self.left.values())
        return waiting + len(self.running) + len(self.missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What taking a cancellation back did."""

    #: Put back to the front of their queues, by task id.
    back: tuple[str, ...] = ()
    #: Not put back, because another task has their `unique_key` now: task id to that task's id.
    refused: Mapping[str, str] = field(default_factory=dict)
    #: Not cancelled any more, without a message to put back.
    unmarked: tuple[str, ...] = ()
    #: Ids that were not cancelled.
    unknown: tuple[str, ...] = ()
