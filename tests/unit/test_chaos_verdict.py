"""The verdict of the chaos harness, on accounts by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from chaos.account import EVERYBODY, Account, Hit, Run, Submission, runs, submissions
from chaos.ledger import ACCEPTED, END, REFUSED, RETRIED, START, TRIED, Line
from chaos.verdict import (
    ACKNOWLEDGED_WITHIN_S,
    FELT_S,
    SENT_TWICE,
    UNEXPLAINED,
    VISIBILITY,
    Verdict,
    evidence,
    judge,
)

LATE = 10 * ACKNOWLEDGED_WITHIN_S


def sent(task: str, at: float = 0.0, *, accepted: bool = True) -> Submission:
    return Submission(task, at, at + 0.001, accepted)


def run(task: str, holder: str, start: float, end: float | None, **more: Any) -> Run:
    first = Run(task, 0, holder, 1, f"{task}-{holder}-{start}", start, end)
    return replace(first, **more)


def account(
    *parts: Submission | Run | Hit, left: Mapping[str, tuple[str, ...]] | None = None
) -> Account:
    return Account(
        submissions={p.task: p for p in parts if isinstance(p, Submission)},
        runs=tuple(sorted((p for p in parts if isinstance(p, Run)), key=lambda r: r.started_at)),
        hits=tuple(p for p in parts if isinstance(p, Hit)),
        left=left or {},
    )


def causes(verdict: Verdict) -> list[str]:
    return [duplicate.cause for duplicate in verdict.duplicates]


# --- lost --------------------------------------------------------------------------------------


def test_what_was_done_once_is_clean() -> None:
    verdict = judge(account(sent("a"), run("a", "w0.1", 1.0, 2.0)))
    assert verdict.clean
    assert (verdict.accepted, verdict.done, verdict.lost) == (1, 1, ())


@pytest.mark.parametrize("started", [False, True])
def test_accepted_and_never_done_is_lost(started: bool) -> None:
    parts = [sent("a")] + ([run("a", "w0.1", 1.0, None)] if started else [])
    verdict = judge(account(*parts))
    assert verdict.lost == ("a",)
    assert not verdict.clean


def test_refused_and_never_done_is_not_lost() -> None:
    verdict = judge(account(sent("a", accepted=False)))
    assert verdict.clean
    assert (verdict.accepted, verdict.unanswered) == (0, 1)


def test_what_ended_by_a_retry_only_is_lost() -> None:
    verdict = judge(account(sent("a"), run("a", "w0.1", 1.0, 2.0, retried=True)))
    assert verdict.lost == ("a",)


def test_what_is_still_in_the_broker_is_not_lost_but_left() -> None:
    verdict = judge(account(sent("a"), left={"in flight": ("a",), "queue celery": ()}))
    assert verdict.lost == ()
    assert verdict.waiting == {"in flight": ("a",)}
    assert verdict.left == {"in flight": 1}
    assert not verdict.clean


def test_a_message_of_what_is_done_is_left_and_does_not_wait() -> None:
    left = {"queue celery": ("a",)}
    verdict = judge(account(sent("a"), run("a", "w0.1", 1.0, 2.0), left=left))
    assert verdict.waiting == {}
    assert verdict.left == {"queue celery": 1}
    assert not verdict.clean


def test_what_nobody_submitted_is_a_stranger() -> None:
    verdict = judge(account(run("a", "w0.1", 1.0, 2.0)))
    assert verdict.strangers == ("a",)
    assert not verdict.clean


# --- duplicated --------------------------------------------------------------------------------


def test_a_second_start_without_a_reason_is_unexplained() -> None:
    verdict = judge(account(sent("a"), run("a", "w0.1", 1.0, 2.0), run("a", "w1.1", 3.0, 4.0)))
    assert causes(verdict) == [UNEXPLAINED]
    assert verdict.unexplained == 1
    assert not verdict.clean


@pytest.mark.parametrize("mode", ["hard", "child", "stop", "cut"])
def test_a_hit_on_its_holder_explains_it(mode: str) -> None:
    parts = (sent("a"), run("a", "w0.1", 1.0, None), run("a", "w1.1", 9.0, 9.5))
    verdict = judge(account(*parts, Hit(mode, "w0.1", 2.0, 2.5)))
    assert causes(verdict) == [mode]
    assert verdict.clean


def test_of_several_hits_the_severest_explains_it() -> None:
    hits = (Hit("cut", "w0.1", 1.5, 1.6), Hit("hard", "w0.1", 2.0, 2.5))
    parts = (sent("a"), run("a", "w0.1", 1.0, None), run("a", "w1.1", 9.0, 9.5))
    assert causes(judge(account(*parts, *hits))) == ["hard"]


@pytest.mark.parametrize(
    ("hit", "cause"),
    [
        (Hit("hard", "w0.1", 11.5, 11.5), "hard"),  # done, and not yet acknowledged
        (Hit("hard", "w0.1", 11.0 + LATE, 11.0 + LATE), UNEXPLAINED),  # long acknowledged
        (Hit("cut", "w0.1", 5.0, 5.1), UNEXPLAINED),  # before it held it
        (Hit("cut", "w0.1", 10.0 - FELT_S, 10.0 - FELT_S / 2), "cut"),  # and still felt
        (Hit("stop", "w0.1", 5.0, 10.5), "stop"),  # frozen from before until after the start
        (Hit("hard", "w2.1", 10.5, 10.5), UNEXPLAINED),  # somebody else
        (Hit("hard", "w0.2", 10.5, 10.5), UNEXPLAINED),  # another life of it
        (Hit("term", "w0.1", 10.5, 13.0), UNEXPLAINED),  # a warm shutdown lets it end
        (Hit("surprise", "w0.1", 10.5, 10.5), UNEXPLAINED),
        (Hit("child", "w0.1", 10.5, 10.5, frozenset({1})), "child"),
        (Hit("child", "w0.1", 10.5, 10.5, frozenset({2})), UNEXPLAINED),  # its neighbour
        (Hit("restart", EVERYBODY, 10.5, 13.0), "restart"),
    ],
)
def test_a_hit_counts_only_on_the_holder_and_while_it_holds(hit: Hit, cause: str) -> None:
    parts = (sent("a", 0.2), run("a", "w0.1", 10.0, 11.0), run("a", "w1.1", 90.0, 91.0))
    assert causes(judge(account(*parts, hit))) == [cause]


def test_a_hit_after_the_second_start_does_not_explain_it() -> None:
    parts = (sent("a"), run("a", "w0.1", 1.0, None), run("a", "w1.1", 2.0, 3.0))
    assert causes(judge(account(*parts, Hit("hard", "w0.1", 2.5, 2.6)))) == [UNEXPLAINED]


def test_one_start_excuses_one_duplicate_and_no_more() -> None:
    three = [run("a", f"w{n}.1", float(n), n + 0.5) for n in range(1, 4)]
    first, second = (Hit("hard", f"w{n}.1", n + 0.2, n + 0.3) for n in (1, 2))
    assert causes(judge(account(sent("a"), *three, first))) == ["hard", UNEXPLAINED]
    assert causes(judge(account(sent("a"), *three, first, second))) == ["hard", "hard"]


@pytest.mark.parametrize(
    ("begun", "over", "cause"),
    [
        (5.0, 9.9, "stop"),
        (5.0, 9.9 - FELT_S, UNEXPLAINED),  # it had been awake for long
        (10.5, 11.0, UNEXPLAINED),  # frozen afterwards
    ],
)
def test_who_was_frozen_before_its_start_begins_when_it_wakes(
    begun: float, over: float, cause: str
) -> None:
    parts = (sent("a"), run("a", "w1.1", 8.0, 8.1), run("a", "w0.1", 10.0, 10.1))
    assert causes(judge(account(*parts, Hit("stop", "w0.1", begun, over)))) == [cause]


def test_a_retry_is_no_duplicate() -> None:
    parts = (run("a", "w0.1", 1.0, 2.0, retried=True), run("a", "w0.1", 2.0, 3.0, attempt=1))
    verdict = judge(account(sent("a"), *parts))
    assert verdict.clean
    assert causes(verdict) == []


def test_a_duplicate_that_retries_explains_one_more_retry() -> None:
    first = run("a", "w0.1", 1.0, 2.0, retried=True)
    again = run("a", "w1.1", 3.0, 4.0, retried=True)
    retries = [run("a", f"w2.{n}", 5.0 + n, 5.5 + n, attempt=1) for n in range(3)]
    verdict = judge(account(sent("a"), first, again, *retries, Hit("hard", "w0.1", 2.0, 2.1)))
    assert causes(verdict) == ["hard", "hard", UNEXPLAINED]


def test_a_restart_within_the_submission_means_that_it_was_sent_twice() -> None:
    submission = Submission("a", 1.0, 3.0, accepted=True)
    two = [run("a", "w0.1", 10.0, 10.1), run("a", "w1.1", 20.0, 20.1)]
    verdict = judge(account(submission, *two, Hit("restart", EVERYBODY, 2.0, 2.5)))
    assert causes(verdict) == [SENT_TWICE]
    assert verdict.unexplained == 1, "no holder was struck"


def test_a_restart_that_it_was_sent_through_is_no_hit_on_its_holder() -> None:
    submission = Submission("a", 1.0, 3.0, accepted=True)
    two = [run("a", "w0.1", 3.1, 3.2), run("a", "w0.1", 3.1, 3.2, pid=2, nonce="other")]
    verdict = judge(account(submission, *two, Hit("restart", EVERYBODY, 2.0, 4.0)))
    assert causes(verdict) == [SENT_TWICE]


def test_another_restart_than_that_which_it_was_sent_through_is_a_hit() -> None:
    submission = Submission("a", 1.0, 3.0, accepted=True)
    two = [run("a", "w0.1", 5.0, 6.0), run("a", "w1.1", 9.0, 9.1)]
    through, later = Hit("restart", EVERYBODY, 2.0, 2.5), Hit("restart", EVERYBODY, 5.5, 8.0)
    assert causes(judge(account(submission, *two, through, later))) == ["restart"]
    assert causes(judge(account(submission, *two, through))) == [SENT_TWICE]


def test_a_visibility_timeout_explains_only_what_came_after_it() -> None:
    def two(gap: float) -> Account:
        start = 1.0 + gap
        return account(sent("a"), run("a", "w0.1", 1.0, 99.0), run("a", "w1.1", start, start + 1))

    assert causes(judge(two(11.0), visibility_s=10.0)) == [VISIBILITY]
    assert causes(judge(two(5.0), visibility_s=10.0)) == [UNEXPLAINED]
    assert causes(judge(two(11.0))) == [UNEXPLAINED]


# --- from ledgers ------------------------------------------------------------------------------


def line(kind: str, at: float, nonce: str = "-", task: str = "a") -> Line:
    return Line(kind, task, 0, "w0.1", 7, at, 1e9 + at, nonce)


def test_submissions_from_lines() -> None:
    lines = [
        line(TRIED, 1.0),
        line(ACCEPTED, 1.5),
        line(TRIED, 2.0, task="b"),
        line(REFUSED, 2.5, "OperationalError", task="b"),
        line(TRIED, 3.0, task="c"),
    ]
    assert submissions(lines) == {
        "a": Submission("a", 1.0, 1.5, accepted=True),
        "b": Submission("b", 2.0, 2.5, accepted=False),
        "c": Submission("c", 3.0, None, accepted=False),
    }


def test_runs_from_lines_pair_by_execution() -> None:
    found = runs(
        [
            line(START, 5.0, "y"),
            line(START, 1.0, "x"),
            line(END, 6.0, "y"),
            line(START, 7.0, "z"),
            line(RETRIED, 8.0, "z"),
        ]
    )
    assert [(r.nonce, r.started_at, r.ended_at, r.retried) for r in found] == [
        ("x", 1.0, None, False),
        ("y", 5.0, 6.0, False),
        ("z", 7.0, 8.0, True),
    ]


def test_the_evidence_tells_all_in_its_order() -> None:
    told = evidence(
        account(
            sent("a", 0.5),
            run("a", "w0.1", 1.0, None),
            run("a", "w1.1", 9.0, 9.5),
            run("b", "w0.1", 1.0, 2.0),
            Hit("hard", "w0.1", 2.0, 2.1),
            Hit("hard", "w1.1", 0.1, 0.2),
            left={"in flight": ("a",)},
        ),
        "a",
    )
    assert [text.split(" ")[1] for text in told[:-1]] == [
        "submission",
        "submission",
        "START",
        "hard",
        "START",
        "END",
    ]
    assert told[-1] == "in the broker: in flight"
