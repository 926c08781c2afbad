"""A run of the schedule on its way through Celery: the first message it sends carries it.

Celery gives a beat no way to hand its sender something, so the beat leaves it for its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from nxs_tasks.store.tick import Tick


@dataclass(slots=True, eq=False)
class Ticket:
    """A run that is being sent.

    `count` counts it without a message; raises `NotLeading`, `AnotherRun`.
    """

    tick: Tick
    count: Callable[[Tick], None]
    #: A message carries it: nothing else does.
    taken: bool = False
    #: It counts now.
    counted: bool = False

    def count_now(self) -> None:
        """For what no script of ours writes. Raises `NotLeading`, `AnotherRun`, `BrokerError`."""
        self.taken = True
        self.count(self.tick)
        self.counted = True


_TICKET: ContextVar[Ticket | None] = ContextVar("nxs_ticket", default=None)


@contextmanager
def sending(ticket: Ticket) -> Iterator[None]:
    """While Celery sends a run in this thread."""
    reset = _TICKET.set(ticket)
    try:
        yield
    finally:
        _TICKET.reset(reset)


def take() -> Ticket | None:
    """What the next message of this thread carries, if anything; the one after carries nothing."""
    ticket = _TICKET.get()
    if ticket is None or ticket.taken:
        return None
    ticket.taken = True
    return ticket
