"""One message is taken before there is a slot for it, while what runs is known to be short.

Between the end of a task and the start of the next a worker asks the broker and waits for the
answer, and its slot is empty. So while all slots are taken it asks ahead, keeps what it gets as
`tenure.kept`, and starts that in the moment in which a slot is free. Whether it may ask is the rule
of the worker (`worker.ahead`); that nobody is idle for it is the rule of the script (`claim.lua`).

A task that runs for longer than such tasks do must not hold up what was taken ahead: after
`longest_s` it goes back to where it was, and nothing is taken ahead until a task has ended here.

What else has to be done comes after the start, at the next turn of the event loop: to tell how the
task before ended, and to ask for the next.

kombu looks at a connection only while there is a slot. So an answer that is awaited without one is
no `_in_poll`, until there is a slot: then it is the answer to the question that would be sent now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nxs_tasks.clock import SYSTEM
from nxs_tasks.store.connect import forgot_script

log = logging.getLogger(__name__)


def nobody() -> int:
    """Nothing is taken ahead."""
    return 0


@dataclass(slots=True, eq=False)
class Ahead:
    """Whether a process takes a message ahead, and for how long it keeps one."""

    #: How many slots there are, if all are taken by tasks that are short; else 0.
    slots: Callable[[], int] = nobody
    #: What is kept starts within this, or goes back, s.
    longest_s: float = 0.0
    #: Tasks that have ended here.
    ends: int = 0
    _closed_at: int = -1

    def wanted(self) -> int:
        """How many slots this process has, if it is to ask now; else 0."""
        return 0 if self._closed_at == self.ends else self.slots()

    def close(self) -> None:
        """Ask no more until a task has ended here."""
        self._closed_at = self.ends


class AheadMixin:
    """What a channel that claims does while it has no slot. Part of `ClaimingMixin`."""

    nxs_tenure: Any
    client: Any
    connection: Any
    qos: Any
    _claims: bool
    closed: bool
    _in_poll: Any
    _script_sent: bool

    _asks_ahead: Any = None  # where an answer is awaited, and there is no slot for what it brings
    _was_ahead = False  # it was asked for ahead, and there is a slot now
    _has_begun = False  # what was kept, at this turn of the event loop
    _tells = False  # how a task ended is told at the next turn
    _wakes_at = 0.0  # the event loop comes round then, monotonic, s

    def tells_soon(self) -> bool:
        """Whether the end of a task is told at a later turn, because what is kept starts first.

        Called in whichever thread has seen the end.
        """
        kept = self.nxs_tenure.kept
        ready = kept is not None and kept.until is not None and not self.nxs_tenure.suspended
        if ready and self.connection.is_in_loop():
            self._tells = True
            # Before the pool looks whether it has something to write, and so before it waits.
            self.connection.call_soon(self._begin)
            return True
        return False

    def _begin(self) -> None:
        if self.closed or self.client.connection is None:
            return  # the loop comes to it after the connection was lost: the next channel begins it
        if self.nxs_tenure.kept is not None and not self._in_poll and self.qos.can_consume():
            self._asks_for_more(self.nxs_tenure)  # type: ignore[attr-defined]

    def after_starts(self) -> None:
        """What is left to do at a turn of the event loop: nothing yet if something has begun."""
        begun, self._has_begun = self._has_begun, False
        if begun:
            return
        self.look_ahead()
        if self._tells:
            self._tells = False
            self.nxs_tenure.settle_all()

    def look_ahead(self) -> None:
        """Ask for one message more than there are slots, if that may be."""
        tenure = self.nxs_tenure
        if tenure is None or not self._claims or self._in_poll or self._asks_ahead:
            return
        ready = tenure.kept is None and not tenure.suspended and not tenure.progress()
        if not ready or self.qos.can_consume():
            return
        slots = tenure.ahead.wanted()
        sock = getattr(self.client.connection, "_sock", None)
        # A connection that is made here would not be one that the poller knows.
        known = sock is not None and self._tracked is sock  # type: ignore[attr-defined]
        if slots and known and self._queues():  # type: ignore[attr-defined]
            self._send_claim(tenure, ahead=slots)  # type: ignore[attr-defined]
            self._asks_ahead = self.client.connection

    def read_ahead(self) -> None:
        """Read the answer, and keep what it brings."""
        tenure, connection = self.nxs_tenure, self._asks_ahead
        self._asks_ahead = None
        try:
            answer = self.client.parse_response(connection, "EVAL")
        except self.connection_errors:  # type: ignore[attr-defined]
            connection.disconnect()
            raise
        except self.ResponseError as error:  # type: ignore[attr-defined]
            # Who asks for a free slot meets it too, and deals with it.
            self._script_sent = self._script_sent and not forgot_script(error)
            tenure.ahead.close()
            return
        if answer[0] == 1:
            self._keep_ahead(answer, tenure)
            return
        tenure.ahead.close()
        if answer[0] < 0:
            tenure.on_displaced()

    def _keep_ahead(self, answer: list[Any], tenure: Any) -> None:
        until = SYSTEM.monotonic() + tenure.ahead.longest_s
        claimed = self._claimed(answer, until=until)  # type: ignore[attr-defined]
        tenure.took(claimed.queue, SYSTEM.monotonic())
        if claimed.message is None:
            # The gate puts it aside, for which it needs no slot.
            self._deliver(claimed, tenure)  # type: ignore[attr-defined]
            return
        tenure.kept = claimed
        self._come_round_at(until)

    def _come_round_at(self, when: float) -> None:
        # One timer at a time: who comes round too soon sets the next.
        now = SYSTEM.monotonic()
        if not now < self._wakes_at <= when:
            self._wakes_at = when
            self.connection.wake_in(when - now)
            self.connection.wake()

    def ahead_waits_s(self) -> float | None:
        """For how long what was taken ahead may go on waiting, s; None if nothing was."""
        kept = None if self.nxs_tenure is None or not self._claims else self.nxs_tenure.kept
        if kept is None or kept.until is None:
            return None
        return max(0.0, float(kept.until) - SYSTEM.monotonic())

    def give_back_if_late(self) -> None:
        """Give back what was taken ahead and could not start in time."""
        waits = self.ahead_waits_s()
        if waits is None:
            return
        tenure = self.nxs_tenure
        if waits > 0:
            self._come_round_at(tenure.kept.until)
        elif tenure.suspended or not self.qos.can_consume():
            log.info("what runs takes longer than it did, so what was to come next goes back")
            tenure.ahead.close()
            tenure.give_back_kept()

    def _slot_came(self) -> bool:
        """There is a slot: whether an answer that was awaited without one is for it."""
        if not self._asks_ahead:
            return False
        self._in_poll, self._asks_ahead, self._was_ahead = self._asks_ahead, None, True
        return True

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._asks_ahead is connection:
            self._asks_ahead = None
        super()._on_connection_disconnect(connection)  # type: ignore[misc]
