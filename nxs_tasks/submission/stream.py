"""The writes of one call, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nxs_tasks.store.publisher import NO_ROOMS, Room
from nxs_tasks.submission.outbox import Outbox, Receipt
from nxs_tasks.submission.outcome import SubmitOutcome


class Stream:
    """Once a write is spooled the next ones are too, even if the broker is back meanwhile.

    Otherwise they would be taken before it.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._why = ""

    def send(
        self, lists: Mapping[str, Sequence[str]], rooms: Mapping[str, Room] = NO_ROOMS
    ) -> Receipt:
        """Hand in messages: for each list those to be taken first at the front."""
        if self._why:
            return self._outbox.keep(lists, self._why)
        receipt = self._outbox.send(lists, rooms=rooms)
        if receipt.outcome is SubmitOutcome.SPOOLED:
            self._why = receipt.reason
        return receipt
