"""The state machine of an instance: one table.

`TRANSITIONS` holds every transition of spec 2.2, and what a fleet needs beside it: an instance
whose process is really gone leaves from any state, a worker that is green and takes no work is a
ZOMBIE too, a ZOMBIE that shuts down finishes what it runs, and a name may be taken again. A pair
that is not in the table is refused by `next_state`. `docs/states.md` is made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nxs_tasks.errors import NxsError
from nxs_tasks.model.state import ENDED, PLACEABLE, Event, State

_GONE_FROM_ANY = {
    (state, event): State.GONE
    for state in State
    if state not in ENDED
    for event in (Event.SILENT_CLOSED, Event.REPLACED)
}

TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.JOINING, Event.CONFIRMED): State.ACTIVE,
        (State.JOINING, Event.JOIN_TIMED_OUT): State.FAILED,
        (State.JOINING, Event.SHUTDOWN): State.LEAVING,
        (State.JOINING, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.ACTIVE, Event.UNHEALTHY): State.DEGRADED,
        (State.ACTIVE, Event.SHUTDOWN): State.LEAVING,
        (State.ACTIVE, Event.DEAF): State.ZOMBIE,
        (State.ACTIVE, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.DEGRADED, Event.RECOVERED): State.ACTIVE,
        (State.DEGRADED, Event.SHUTDOWN): State.LEAVING,
        (State.DEGRADED, Event.DEAF): State.ZOMBIE,
        (State.DEGRADED, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.LEAVING, Event.DRAINED): State.GONE,
        (State.LEAVING, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.ZOMBIE, Event.SHUTDOWN): State.LEAVING,
        (State.ZOMBIE, Event.JOINED): State.JOINING,
        (State.ZOMBIE, Event.TERMINATED): State.GONE,
        **_GONE_FROM_ANY,
        (State.GONE, Event.JOINED): State.JOINING,
        (State.FAILED, Event.JOINED): State.JOINING,
    }
)

#: What nobody had planned, if it happens to an instance that worked.
UNPLANNED = frozenset({Event.DEAF, Event.SILENT_CONNECTED, Event.SILENT_CLOSED, Event.REPLACED})


class InvalidTransition(NxsError):
    """The table has no such transition."""


def next_state(state: State, event: Event) -> State:
    """The state after `event`. Raises `InvalidTransition` for a pair that is not in the table."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        known = ", ".join(e.name for s, e in TRANSITIONS if s is state)
        raise InvalidTransition(
            f"{state} has no transition on {event.name} ({event}); it has: {known}"
        ) from None


def is_loss(state: State, event: Event) -> bool:
    """Whether the fleet loses an instance that worked, and nobody had planned it."""
    return state in PLACEABLE and event in UNPLANNED
