"""What happened, as the history keeps it. `event_id` makes each record idempotent to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRecord:
    """An instance changed state; or something was done about it while it stays in one."""

    event_id: str  # unique over the fleet: the broker's stream id
    at: float  # server time, s
    instance: str
    epoch: int
    source: str  # state names
    target: str
    event: str
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRecord:
    """A task was placed (a sample of all placements, or all of them by setting)."""

    event_id: str
    at: float  # submitter's wall time, s
    task_id: str
    task: str  # registered name
    instance: str | None  # None = the shared queue
    score: float | None
    reason: str
    candidates: tuple[Mapping[str, Any], ...] = ()  # instance, score, terms, why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecord:
    """A task lost its holder: the process that had its message died."""

    event_id: str
    at: float  # server time of the rescue, s
    task_id: str
    task: str  # registered name
    instance: str
    epoch: int
    became: str  # "given back" or "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRecord:
    """A control job ran."""

    event_id: str
    at: float  # wall time of its start, s
    job: str
    lateness_s: float  # start minus the time it was due
    took_s: float
    node: str  # who ran it


#: Whatever the history keeps.
Record = TransitionRecord | PlacementRecord | LossRecord | TickRecord
