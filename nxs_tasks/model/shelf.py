"""A message that is out of every queue, and why: it waits for its time, a worker, or a person."""

from __future__ import annotations

from dataclasses import dataclass

#: Until its ETA: an entry's time is when it is due.
DELAYED = "delayed"
#: Until an instance knows its task.
PARKED = "parked"
#: Until its task is resumed.
PAUSED = "paused"
#: Until its cancellation is taken back or forgotten: an entry's id begins with that of its task.
CANCELLED = "cancelled"
#: Until a person has looked at it: it is broken, or has lost its holder too often.
QUARANTINE = "quarantine"
SHELVES = (DELAYED, PARKED, PAUSED, QUARANTINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """One message on a shelf."""

    id: str
    at: float  # server time, s: when it is due, or else when it was put there
    list: str  # key of the list that it goes back to
    message: str  # as it was in the queue
    reason: str
    task_id: str = ""
    task: str = ""
