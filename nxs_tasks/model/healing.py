"""What a worker can do about its own consumer when that takes no work, the mildest first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Remedy(StrEnum):
    """One thing to do. In the order in which they are tried."""

    CONSUME = "consumes again from the queues that it had stopped to consume"
    RECONNECT = "drops its connections to the broker, and connects anew"
    RESTART_POOL = "restarts its pool"
    END = "gives back what waits for it and ends, to be started anew"
    KILL = "ends at once: it has not ended when it was told to"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the ladder: what is done after so long without taking work."""

    after_s: float
    remedy: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaf:
    """What a worker sees of its consumer, which takes no work."""

    for_s: float  # since it was first seen so, without a break
    asked_s: float | None  # since it last asked the broker for work; None = unknown
    missing: frozenset[str] = frozenset()  # queues that it has to consume, and does not
    paused: frozenset[str] = frozenset()  # queues of these that somebody has paused
    full: bool = False  # every slot is taken
    suspended: bool = False  # it takes nothing until it knows whose fault some failures are
    served: bool = True  # it has been ACTIVE in this process
    pool_restarts: bool = False  # its pool can be restarted
    told_to_end: bool = False
    last: Remedy | None = None  # what was tried last
