"""The verdict: a pure function of an account.

Lost: accepted, never done, and not in the broker either. Duplicated: started once more than its
message was sent. A duplicate is explained if the holder of an earlier start was struck while it
held the message, and each start excuses one duplicate and no more. Left over: still in the broker
when everything should be done.

Who is frozen between taking a message and its start begins when it wakes, perhaps after another to
whom the message was given meanwhile: that is explained too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from chaos.account import EVERYBODY, Account, Hit, Run, Submission

#: Between a task's last line and the end of its acknowledgement, s: a hit then still counts.
ACKNOWLEDGED_WITHIN_S = 2.0
#: A hit is felt for so long after it is over, s: connections must be made anew.
FELT_S = 1.0
#: Of several hits the first of these explains a duplicate.
SEVEREST_FIRST = ("hard", "child", "stop", "restart", "cut")
#: A warm shutdown lets its tasks end, so it explains nothing.
UNEXPLAINED = "unexplained"
#: The server went away while the task was submitted, and so it was sent once more.
SENT_TWICE = "sent twice"
#: It ran for longer than plain Celery waits before it hands a message out anew.
VISIBILITY = "visibility timeout"
NO_EXCUSE = (UNEXPLAINED, SENT_TWICE)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One start too many."""

    run: Run
    cause: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of all submissions."""

    accepted: int
    unanswered: int  # refused, or their submitter never knew
    done: int  # of the accepted
    lost: tuple[str, ...]
    waiting: Mapping[str, tuple[str, ...]]  # accepted, not done: place in the broker → ids
    left: Mapping[str, int]  # place in the broker → messages
    duplicates: tuple[Duplicate, ...]
    strangers: tuple[str, ...]  # ran, and nobody had submitted them

    @property
    def causes(self) -> Mapping[str, int]:
        """Cause → duplicates."""
        return Counter(d.cause for d in self.duplicates)

    @property
    def unexplained(self) -> int:
        """Duplicates that no act of ours explains."""
        return sum(self.causes.get(cause, 0) for cause in NO_EXCUSE)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing unexplained, nothing left."""
        return not (self.lost or self.unexplained or sum(self.left.values()) or self.strangers)


def judge(account: Account, visibility_s: float | None = None) -> Verdict:
    """The verdict. `visibility_s` is the visibility timeout where one is at work."""
    accepted = {s.task for s in account.submissions.values() if s.accepted}
    done = {r.task for r in account.runs if r.ended_at is not None and not r.retried}
    waiting = {
        place: tuple(sorted(found))
        for place, ids in account.left.items()
        if (found := (accepted - done) & set(ids))
    }
    in_broker = {task for ids in waiting.values() for task in ids}
    return Verdict(
        accepted=len(accepted),
        unanswered=len(account.submissions) - len(accepted),
        done=len(accepted & done),
        lost=tuple(sorted(accepted - done - in_broker)),
        waiting=waiting,
        left={place: len(ids) for place, ids in account.left.items() if ids},
        duplicates=tuple(_duplicates(account, visibility_s)),
        strangers=tuple(sorted({r.task for r in account.runs} - set(account.submissions))),
    )


def _duplicates(account: Account, visibility_s: float | None) -> Iterator[Duplicate]:
    hits = _Hits(account.hits)
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in account.runs:
        by_task[run.task].append(run)
    for task, found in by_task.items():
        if len({run.attempt for run in found}) < len(found):
            yield from _of_task(found, account.submissions.get(task), hits, visibility_s)


def _of_task(
    found: list[Run], submission: Submission | None, hits: _Hits, visibility_s: float | None
) -> Iterator[Duplicate]:
    """Duplicates of one task, earliest start first."""
    # A retry is sent by the run before it, so a duplicate of that sends one more.
    inherited: list[str] = []
    # A restart that it was sent through did not take its message from a holder: it came afterwards.
    through = hits.through(submission)
    for attempt in sorted({run.attempt for run in found}):
        first, *others = (run for run in found if run.attempt == attempt)
        unused, causes = [first], []
        for run in others:
            cause = _excuse(unused, run, hits, through)
            if cause is None and inherited:
                cause = inherited.pop(0)
            if cause is None and through:
                cause, through = SENT_TWICE, frozenset()
            causes.append(cause or _outlived(unused, run, visibility_s) or UNEXPLAINED)
            yield Duplicate(run, causes[-1])
            unused.append(run)
        inherited, through = causes, frozenset()


def _excuse(unused: list[Run], run: Run, hits: _Hits, through: frozenset[Hit]) -> str | None:
    """Why there is this run, and use up the earlier one that explains it."""
    for earlier in unused:
        mode = hits.on(earlier, run.started_at, through)
        if mode is not None:
            unused.remove(earlier)
            return mode
    return "stop" if hits.woken(run) else None


def _outlived(unused: list[Run], run: Run, visibility_s: float | None) -> str | None:
    """Whether an earlier run took longer than the visibility timeout; uses it up."""
    if visibility_s is None:
        return None
    for earlier in unused:
        if run.started_at - earlier.started_at >= visibility_s - ACKNOWLEDGED_WITHIN_S:
            unused.remove(earlier)
            return VISIBILITY
    return None


class _Hits:
    """Hits by holder: there are many runs."""

    def __init__(self, hits: Iterable[Hit]) -> None:
        self._by_holder: dict[str, list[Hit]] = defaultdict(list)
        for hit in hits:
            self._by_holder[hit.holder].append(hit)

    def on(self, run: Run, before: float, but: frozenset[Hit]) -> str | None:
        """The severest mode in which the holder of a run was struck while it held the message."""
        until = float("inf") if run.ended_at is None else run.ended_at + ACKNOWLEDGED_WITHIN_S
        until = min(until, before)
        found = {
            hit.mode
            for hit in {*self._by_holder[run.holder], *self._by_holder[EVERYBODY]} - but
            if hit.strikes(run) and hit.begun_at <= until and hit.over_at + FELT_S >= run.started_at
        }
        return next((mode for mode in SEVEREST_FIRST if mode in found), None)

    def woken(self, run: Run) -> bool:
        """Whether a run began as its holder woke: it had the message before it was frozen."""
        return any(
            hit.mode == "stop" and hit.begun_at < run.started_at <= hit.over_at + FELT_S
            for hit in self._by_holder[run.holder]
        )

    def through(self, submission: Submission | None) -> frozenset[Hit]:
        """What struck everybody while a task was submitted."""
        if submission is None:
            return frozenset()
        since, until = submission.tried_at, submission.answered_at
        return frozenset(
            hit
            for hit in self._by_holder[EVERYBODY]
            if hit.over_at >= since and (until is None or hit.begun_at <= until)
        )


def evidence(account: Account, task: str) -> list[str]:
    """All that is known of one task, in the order in which it happened, a line each."""
    lines: list[tuple[float, str]] = []
    submission = account.submissions.get(task)
    if submission is not None:
        lines.append((submission.tried_at, "submission tried"))
        if submission.answered_at is not None:
            said = "accepted" if submission.accepted else "refused"
            lines.append((submission.answered_at, f"submission {said}"))
    for run in (r for r in account.runs if r.task == task):
        who = f"attempt {run.attempt} by {run.holder} (pid {run.pid}, {run.nonce})"
        lines.append((run.started_at, f"START {who}"))
        if run.ended_at is not None:
            lines.append((run.ended_at, f"{'RETRY' if run.retried else 'END'} {who}"))
        for hit in account.hits:
            if hit.strikes(run) and hit.over_at >= run.started_at:
                lines.append((hit.begun_at, f"{hit.mode} {hit.holder} until {hit.over_at:.3f}"))
    told = [f"{at:.3f} {text}" for at, text in sorted(set(lines))]
    places = [place for place, ids in account.left.items() if task in ids]
    return [*told, f"in the broker: {', '.join(places) or 'nowhere'}"]
