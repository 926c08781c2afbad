"""Why a task does not run: where it was found, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nxs_tasks.model.intent import Cancelled, Pause

#: Where a task can be: in a queue, with a process, on a shelf (`model/shelf.py`), or in none of it.
Place = Literal[
    "queue", "held", "delayed", "parked", "paused", "quarantine", "cancelled", "nowhere"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where one task was found, and what is in force for it."""

    task_id: str
    place: Place
    task: str = ""  # its name; "" = unknown
    queue: str = ""  # that it waits in, or goes back to
    own_of: str = ""  # the instance whose own queue that is; "" = nobody's
    priority: int = 0
    ahead: int = 0  # in that queue, those of more urgent priorities included
    #: By queue, how many in another one may be taken before it by a worker that takes from both.
    beside: Mapping[str, int] = field(default_factory=dict)
    placed: bool = False  # by the fleet; else its sender, or a route, named the queue
    placed_why: str = ""
    key: str = field(default="", repr=False)  # affinity key: made of arguments, so never printed
    holder: str = ""  # instance id
    epoch: int = 0
    token: str = ""  # under which it is held
    #: Server time, s: of one that is delayed or has an ETA when it is due, else since when it is
    #: there.
    at: float | None = None
    reason: str = ""  # as its shelf tells it
    pauses: tuple[Pause, ...] = ()  # all that are in force
    cancelled: Cancelled | None = None
    result: str = ""  # state of its result; "" = none, or it cannot be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When a task is expected to start, in s from now. None = unknown, and `why` says why."""

    earliest_s: float | None = None
    about_s: float | None = None
    latest_s: float | None = None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotThere:
    """Why a task does not run on one instance now."""

    instance: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a task does not run now, or what else is with it."""

    where: Whereabouts
    known: bool  # else neither a message nor a result of it was found
    waits: bool
    sentence: str
    instances: tuple[NotThere, ...] = ()  # by id; only if it waits
    start: Start | None = None  # only if it waits


def span(seconds: float) -> str:
    """A time for people: `45 s`, `3 min`, `2 h`, `5 days`."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
