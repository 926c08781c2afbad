"""What became of a submission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, overload


class SubmitOutcome(StrEnum):
    """What became of one submitted task."""

    #: The broker has it.
    ACCEPTED = "accepted"
    #: The broker did not confirm it in time; it is kept on this machine and sent again, once.
    SPOOLED = "spooled"
    #: It is not kept and will not be sent; the reason says why.
    REJECTED = "rejected"


class Fate(NamedTuple):
    """What many tasks of one batch have in common."""

    outcome: SubmitOutcome
    reason: str
    queue: str


class Submission(NamedTuple):
    """One submitted task: its id, what became of it and why, and the queue that it was meant for.

    The queue is "" where Celery itself has sent it and did not tell.
    """

    id: str
    outcome: SubmitOutcome
    reason: str
    queue: str


@dataclass(frozen=True, slots=True)
class BatchResult(Sequence[Submission]):
    """What became of a batch: a sequence of `Submission`s in the order of the batch."""

    ids: Sequence[str]
    fates: Sequence[Fate]  # of each task

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Submission: ...
    @overload
    def __getitem__(self, index: slice) -> BatchResult: ...
    def __getitem__(self, index: int | slice) -> Submission | BatchResult:
        if isinstance(index, slice):
            return BatchResult(self.ids[index], self.fates[index])
        return Submission(self.ids[index], *self.fates[index])

    def counts(self) -> dict[SubmitOutcome, int]:
        """How many tasks came to which outcome; only outcomes that occurred."""
        return dict(Counter(fate.outcome for fate in self.fates))

    def reasons(self) -> dict[str, int]:
        """How often which reason was given."""
        return dict(Counter(fate.reason for fate in self.fates))
