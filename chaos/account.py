"""What the verdict is about: submissions, executions, what was done to whom, what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chaos.ledger import ACCEPTED, END, RETRIED, START, TRIED, Line

#: The holder of a hit that everybody feels.
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission of one task. `answered_at` is None if its process ended before."""

    task: str
    tried_at: float
    answered_at: float | None
    accepted: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One execution. `ended_at` is None if it was never seen to end."""

    task: str
    attempt: int
    holder: str
    pid: int
    nonce: str
    started_at: float
    ended_at: float | None = None
    retried: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """What was done to a holder, from when to when. Without `pids` all its processes felt it."""

    mode: str
    holder: str
    begun_at: float
    over_at: float
    pids: frozenset[int] = frozenset()

    def strikes(self, run: Run) -> bool:
        """Whether it was done to the process of this run."""
        mine = self.holder in (run.holder, EVERYBODY)
        return mine and (not self.pids or run.pid in self.pids)


@dataclass(frozen=True, slots=True)
class Account:
    """All there is to judge one run by. `left` is place in the broker → ids of tasks."""

    submissions: Mapping[str, Submission]
    runs: tuple[Run, ...]
    hits: tuple[Hit, ...]
    left: Mapping[str, tuple[str, ...]]


def submissions(lines: Iterable[Line]) -> dict[str, Submission]:
    """From the submitter's ledger."""
    found: dict[str, Submission] = {}
    for line in lines:
        if line.kind == TRIED:
            found[line.task] = Submission(line.task, line.at, None, accepted=False)
        else:
            tried = found[line.task].tried_at if line.task in found else line.at
            found[line.task] = Submission(line.task, tried, line.at, line.kind == ACCEPTED)
    return found


def runs(lines: Iterable[Line]) -> tuple[Run, ...]:
    """From the workers' ledger, earliest start first."""
    starts: dict[str, Line] = {}
    ends: dict[str, Line] = {}
    for line in lines:
        if line.kind == START:
            starts[line.nonce] = line
        elif line.kind in (END, RETRIED):
            ends[line.nonce] = line
    return tuple(
        sorted(
            (_run(start, ends.get(nonce)) for nonce, start in starts.items()),
            key=lambda run: run.started_at,
        )
    )


def _run(start: Line, end: Line | None) -> Run:
    return Run(
        task=start.task,
        attempt=start.attempt,
        holder=start.holder,
        pid=start.pid,
        nonce=start.nonce,
        started_at=start.at,
        ended_at=None if end is None else end.at,
        retried=end is not None and end.kind == RETRIED,
    )
