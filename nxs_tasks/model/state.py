"""The states of an instance, by their names in spec 2.1."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an instance is in its life."""

    JOINING = "JOINING"  # announced, not yet confirmed healthy
    ACTIVE = "ACTIVE"  # healthy, accepts work
    DEGRADED = "DEGRADED"  # responds, with errors or high latency
    LEAVING = "LEAVING"  # graceful shutdown
    ZOMBIE = "ZOMBIE"  # heartbeat failed, processes still run
    GONE = "GONE"  # confirmed departed, cleaned up
    FAILED = "FAILED"  # join timed out


class Event(StrEnum):
    """What can happen to an instance, in the words of spec 2.2."""

    CONFIRMED = "confirmed"  # 3 consecutive successful heartbeats
    JOIN_TIMED_OUT = "join timed out"  # 2 minutes without reaching ACTIVE
    UNHEALTHY = "unhealthy"  # error rate > 10 % or latency > 2 × baseline
    RECOVERED = "recovered"  # 5 consecutive healthy heartbeats
    SHUTDOWN = "shutdown"  # graceful shutdown signal
    DRAINED = "drained"  # all tasks migrated, state synced
    DEAF = "deaf"  # heartbeats are there, but its consumer takes no work
    SILENT_CONNECTED = "silent, connected"  # heartbeat timeout while TCP connections persist
    SILENT_CLOSED = "silent, closed"  # heartbeats missed and no TCP connection left
    TERMINATED = "terminated"  # forced termination after the grace period
    REPLACED = "replaced"  # a new process took the name of one that is no longer there
    JOINED = "joined"  # a process announced itself


#: Where an instance may be given new work.
PLACEABLE = frozenset({State.ACTIVE, State.DEGRADED})
#: Where an instance is no longer part of the fleet.
ENDED = frozenset({State.GONE, State.FAILED})
