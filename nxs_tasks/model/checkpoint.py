"""A task that can go on elsewhere while it runs, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Somebody wants a task to go on elsewhere; it has not stopped for that yet."""

    to: str  # instance id; "" = any other than `of`
    of: str  # who held the task when it was asked for
    by: str  # user@host
    at: float | None  # server time, s


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What is known of a task's checkpoint, without the state: that is nobody else's business."""

    task: str
    at: float | None  # server time of the last save, s; None before the first
    size: int  # of the state, bytes
    move: Move | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A running task was asked to go on elsewhere."""

    task_id: str
    task: str
    holder: str  # who runs it now
    to: str  # instance id; "" = any other
    new: bool  # False = the same was asked before
