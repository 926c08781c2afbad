"""What is wanted: the values that policies return and effects carry out.

Every decision carries its reason, the evidence for it, and the precondition (state and epoch of
the instance) that the effect checks atomically. "Nothing" is a decision too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nxs_tasks.model.healing import Remedy
from nxs_tasks.model.state import Event, State

Evidence = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Move an instance to another state; refused if state or epoch changed meanwhile."""

    instance: str
    epoch: int
    source: State
    target: State
    event: Event
    loss: bool = False  # the instance is lost by this, and nobody had planned it
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Give the waiting tasks of an instance's own queue to others, or to the shared queue."""

    instance: str
    epoch: int
    source: State
    target: str  # the shared queue of its app
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withhold:
    """Give an instance no work for a while, because it is lost again and again.

    Refused if it was withheld for another loss meanwhile.
    """

    instance: str
    epoch: int
    source: State
    level: int  # of the back-offs that count against it, with this one
    level_before: int
    loss_at: float  # server time of the loss, s
    until: float  # server time, s; 0 = it is only told
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Remove the record of an instance that ended long ago."""

    instance: str
    epoch: int
    source: State
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Leave an instance as it is, and say why."""

    instance: str
    epoch: int
    source: State
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """Give what a process holds that is gone to others; refused if it is part of the fleet."""

    instance: str
    epoch: int
    held: int
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpark:
    """Give parked tasks of one name to an instance that knows it now."""

    task: str
    instance: str
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eject:
    """Have an instance take no work for so long; refused if too many are ejected already."""

    instance: str
    epoch: int
    source: State
    times: int  # the ejections that count against it, with this one
    seconds: float
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steal:
    """Have an idle instance take what waits for others, one by one, while it has nothing else.

    `victims` are in the order in which it looks.
    """

    instance: str
    epoch: int
    source: State
    victims: tuple[str, ...]
    names: frozenset[str] | None  # of the tasks that it may take; None = all
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    """Have a worker do something about its own consumer, which takes no work."""

    instance: str
    epoch: int
    source: State
    remedy: Remedy
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrate:
    """Move waiting tasks from one own queue to another, as one batch; see `policy.fleet.rebalance`.

    Refused if state or epoch of either instance changed, or if one has taken part in another
    migration meanwhile.
    """

    source: str
    source_epoch: int
    source_state: State
    target: str
    target_epoch: int
    target_state: State
    tasks: int  # how many at most
    after: int  # so many of the source, next in turn, are about to start there and stay
    knows: frozenset[str] = field(repr=False)  # what the target can run: the same in one epoch
    warm: tuple[str, ...] = ()  # affinity keys that are warm at the target
    cold_after: float = 0.0  # one with another key moves once it has waited for so long, s
    reason: str
    evidence: Evidence = field(default_factory=dict)

    @property
    def instance(self) -> str:
        """Whom it is about first: who gives."""
        return self.source


Decision = Transition | Withhold | Release | Forget | Nothing | Rescue | Unpark | Migrate


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a decision."""

    decision: Decision
    applied: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The five terms of the score, each 0..1 or None where the metric is unknown (spec 1.1)."""

    cpu: float | None
    memory: float | None
    queue: float | None
    latency: float | None
    reliability: float | None

    def as_dict(self) -> dict[str, float | None]:
        """By name, rounded for people."""
        return {
            name: None if value is None else round(value, 4)
            for name in self.__dataclass_fields__
            for value in (getattr(self, name),)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One instance in a placement: score, terms, and why it was not chosen ("" if it was)."""

    instance: str
    score: float | None
    terms: Terms
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a task goes: the own queue of `instance`, or the shared queue if that is None.

    With a `limit` only if the instance still has that epoch, and what it holds, what waits for it
    and this task (`cost`) are no more than so many slots; else the task goes to the shared queue
    after all.
    """

    task: str
    instance: str | None
    score: float | None
    reason: str
    epoch: int | None = None
    limit: int | None = None
    cost: int = 1  # slots that the task takes
    key: str = ""  # what the task wants to find in a cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A placement with everything it was weighed on."""

    placement: Placement
    candidates: tuple[Candidate, ...]
