"""What became of a task, as the worker's main process counts it: only ends, and each once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry, Terminated
from celery.worker.request import Request
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.worker.tally import Ran, Row, Tally, count_tasks, counting
from tests.unit.builders import case, examples


class PlainRequest:
    """What Celery's `Request` does at the end of a task, less the events and the results."""

    acknowledged = False
    time_start: float | None = None

    def __init__(self, *, acks_late: bool = True, throws: Any = (), reject: bool = False) -> None:
        self.task = SimpleNamespace(name="shop.pay", acks_late=acks_late, throws=throws)
        self.reject_failures = reject
        self.calls: list[str] = []

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self.calls.append("acknowledge")
            self.acknowledged = True

    def reject(self) -> None:
        if not self.acknowledged:
            self.calls.append("reject")
            self.acknowledged = True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self.time_start = 1.0
        if not self.task.acks_late:
            self.acknowledge()

    def on_success(self) -> None:
        if self.task.acks_late:
            self.acknowledge()

    def on_retry(self, exc_info: Any) -> str:
        if self.task.acks_late:
            self.acknowledge()
        return "retried"

    def on_failure(self, exc_info: Any, send_failed_event: bool = True) -> str:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Terminated):
            self.announce_revoked()
        elif isinstance(error, Reject) or (self.reject_failures and self.task.acks_late):
            self.reject()
        elif isinstance(error, Ignore):
            self.acknowledge()
        elif isinstance(error, Retry):
            return self.on_retry(exc_info)
        elif self.task.acks_late:
            self.acknowledge()
        return "failed"

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft and self.task.acks_late:
            self.acknowledge()

    def announce_revoked(self) -> None:
        self.acknowledge()


def failure(error: BaseException) -> Any:
    return SimpleNamespace(exception=error)


def from_a_child(error: Exception) -> Any:
    """As it comes out of a pool process: wrapped, with its traceback as text."""
    return failure(ExceptionWithTraceback(error, None))


Step = Callable[[Any], object]


def accepted(request: Any) -> None:
    request.on_accepted(1, 1.0)


def succeeded(request: Any) -> None:
    request.on_success()


def revoked(request: Any) -> None:
    request.announce_revoked()


def retried(request: Any) -> None:
    request.on_retry(failure(Retry("later")))


def timed_out(request: Any) -> None:
    request.on_timeout(False, 5.0)


def warned_of_its_time(request: Any) -> None:
    request.on_timeout(True, 5.0)


def failed_with(error: BaseException, wrap: Callable[[Any], Any] = failure) -> Step:
    return lambda request: request.on_failure(wrap(error))


class Expected(KeyError):
    """An error that the task declares."""


ENDINGS = [
    case("it is only received", [], (0, 0)),
    case("it still runs", [accepted], (0, 0)),
    case("it succeeds", [accepted, succeeded], (1, 0)),
    case("it fails", [accepted, failed_with(ValueError("x"))], (0, 1)),
    case("it fails in a child", [accepted, failed_with(ValueError("x"), from_a_child)], (0, 1)),
    case("its process is lost", [accepted, failed_with(WorkerLostError("x"))], (0, 1)),
    case("its process exits", [accepted, failed_with(SystemExit(1))], (0, 1)),
    case("it fails as it declares", [accepted, failed_with(KeyError("x"))], (0, 0)),
    case("it fails by a kind of what it declares", [accepted, failed_with(Expected("x"))], (0, 0)),
    case(
        "it fails in a child as it declares",
        [accepted, failed_with(KeyError("x"), from_a_child)],
        (0, 0),
    ),
    case("it is retried", [accepted, retried], (0, 0)),
    case("it raises a retry", [accepted, failed_with(Retry("later"))], (0, 0)),
    case("it is ignored", [accepted, failed_with(Ignore())], (0, 0)),
    case("it is rejected", [accepted, failed_with(Reject("no"))], (0, 0)),
    case("it is rejected in a child", [accepted, failed_with(Reject("no"), from_a_child)], (0, 0)),
    case("it is terminated", [accepted, failed_with(Terminated("9"))], (0, 0)),
    case(
        "it is terminated and said to be revoked first",
        [accepted, revoked, failed_with(Terminated("9"))],
        (0, 0),
    ),
    case("it is revoked before it starts", [revoked], (0, 0)),
    case("it exceeds its hard time limit", [accepted, timed_out], (0, 1)),
    case(
        "it exceeds its hard time limit and its process dies of that",
        [accepted, timed_out, failed_with(TimeLimitExceeded(5))],
        (0, 1),
    ),
    case(
        "it exceeds its soft time limit and ends well",
        [accepted, warned_of_its_time, succeeded],
        (1, 0),
    ),
    case(
        "it exceeds its soft time limit and fails",
        [accepted, warned_of_its_time, failed_with(ValueError("x"))],
        (0, 1),
    ),
    case("its failure is told twice", [accepted, *[failed_with(ValueError("x"))] * 2], (0, 1)),
    case("its success is told twice", [accepted, succeeded, succeeded], (1, 0)),
    case("its retry is told twice", [accepted, retried, retried], (0, 0)),
]


@pytest.mark.parametrize(("steps", "counted"), ENDINGS)
@pytest.mark.parametrize("acks_late", [True, False], ids=["late ack", "early ack"])
def test_a_task_counts(steps: list[Step], counted: tuple[int, int], acks_late: bool) -> None:
    tally = Tally()
    request = counting(PlainRequest, tally)(acks_late=acks_late, throws=(KeyError,))
    for step in steps:
        step(request)
    assert (tally.succeeded, tally.failed) == (
        # Acknowledged early, it is a success until it is known to have failed.
        (1, 0) if steps == [accepted] and not acks_late else counted
    )


def test_a_failure_that_is_rejected_counts() -> None:
    tally = Tally()
    request = counting(PlainRequest, tally)(reject=True)
    accepted(request)
    request.on_failure(failure(ValueError("x")))
    assert (tally.succeeded, tally.failed) == (0, 1)
    assert request.calls == ["reject"]


def test_a_message_that_was_given_back_is_no_success_here() -> None:
    tally = Tally()
    request = counting(PlainRequest, tally)()
    accepted(request)
    request.reject()
    succeeded(request)
    assert (tally.succeeded, tally.failed) == (0, 0)


def test_counting_changes_nothing_of_what_celery_does() -> None:
    plain, counted = PlainRequest(), counting(PlainRequest, Tally())()
    for request in (plain, counted):
        accepted(request)
        assert request.on_failure(failure(ValueError("x")), send_failed_event=False) == "failed"
        assert request.on_retry(failure(Retry("x"))) == "retried"
        assert request.on_timeout(False, 1.0) is None
        request.acknowledge()
    assert plain.calls == counted.calls == ["acknowledge"]


def test_a_task_may_declare_one_error_as_celery_takes_it() -> None:
    tally = Tally()
    request = counting(PlainRequest, tally)(throws=KeyError)
    accepted(request)
    request.on_failure(failure(KeyError("x")))
    assert (tally.succeeded, tally.failed) == (0, 0)


def test_requests_are_counted_together_and_judged_apart() -> None:
    tally = Tally()
    make = counting(PlainRequest, tally)
    requests = [make() for _ in range(3)]
    for request in requests:
        accepted(request)
    succeeded(requests[0])
    failed_with(ValueError("x"))(requests[1])
    succeeded(requests[2])
    assert (tally.succeeded, tally.failed) == (2, 1)


steps = st.sampled_from(
    [
        succeeded,
        revoked,
        retried,
        timed_out,
        warned_of_its_time,
        failed_with(ValueError("x")),
        failed_with(Terminated("9")),
    ]
)


@examples(80)
@given(st.lists(steps, max_size=6), st.booleans(), st.booleans())
def test_a_task_counts_once_at_most_whatever_is_told(
    told: list[Step], acks_late: bool, started: bool
) -> None:
    tally = Tally()
    request = counting(PlainRequest, tally)(acks_late=acks_late)
    if started:
        accepted(request)
    for step in told:
        step(request)
        assert (tally.succeeded, tally.failed) in {(0, 0), (1, 0), (0, 1)}


# --- with the classes of Celery ----------------------------------------------------------------


def test_a_request_class_may_be_given_by_its_dotted_path() -> None:
    tally = Tally()
    made = counting("celery.worker.request:Request", tally)
    assert issubclass(made, Request)
    assert made.tally is tally


def test_every_task_of_an_app_is_counted_by_one_class_for_each_kind_of_request() -> None:
    class OwnRequest(Request):
        pass

    app = Celery("shop", broker="memory://", set_as_current=False)

    def work() -> None:
        pass

    for name in ("shop.mail", "shop.report", "shop.own"):
        app.task(work, name=name, shared=False)
    app.finalize()
    app.tasks["shop.own"].Request = OwnRequest
    count_tasks(app, Tally())
    mail, report = (app.tasks[name].Request for name in ("shop.mail", "shop.report"))
    assert mail is report
    assert issubclass(mail, Request)
    assert issubclass(app.tasks["shop.own"].Request, OwnRequest)


class TestByName:
    def test_what_came_is_taken_once(self) -> None:
        tally = Tally()
        tally.success("shop.pay", 2.0)
        tally.success("shop.pay", 4.0)
        tally.success("shop.mail")
        tally.failure("shop.mail")
        assert tally.take() == {
            "shop.pay": Ran(succeeded=2),
            "shop.mail": Ran(succeeded=1, failed=1),
        }
        assert tally.take() == {}

    def test_a_success_that_was_none_is_taken_back(self) -> None:
        tally = Tally()
        tally.success("shop.pay")
        tally.take()
        tally.no_success("shop.pay")
        tally.failure("shop.pay")
        assert tally.take() == {"shop.pay": Ran(succeeded=-1, failed=1)}

    def test_failures_since_the_last_success_of_a_name_are_a_row(self) -> None:
        times = iter((1.0, 2.0, 3.0))
        tally = Tally(lambda: next(times))
        tally.failure("shop.pay")
        tally.success("shop.pay", 1.0)
        assert (tally.rows, list(tally.tail)) == ({}, [])
        tally.failure("shop.mail")
        tally.failure("shop.pay")
        assert tally.rows == {"shop.mail": Row(1, 2.0), "shop.pay": Row(1, 3.0)}
        assert list(tally.tail) == ["shop.mail", "shop.pay"]
        tally.success("shop.mail", 1.0)
        assert (list(tally.rows), list(tally.tail)) == (["shop.pay"], [])

    def test_a_task_that_has_only_begun_ends_no_row(self) -> None:
        tally = Tally()
        for _ in range(5):
            tally.failure("shop.pay")
            tally.success("shop.pay")
        assert (tally.rows["shop.pay"].count, len(tally.tail)) == (5, 5)

    def test_early_tasks_that_fail_make_a_row(self) -> None:
        tally = Tally()
        for _ in range(5):
            request = counting(PlainRequest, tally)(acks_late=False)
            accepted(request)
            request.on_failure(failure(ValueError("x")))
        assert (tally.rows["shop.pay"].count, tally.succeeded, tally.failed) == (5, 0, 5)

    def test_a_retry_because_of_an_error_is_a_sign_and_no_failure(self) -> None:
        tally, told = Tally(), list[str]()
        tally.on_failure = told.append
        for error in (Retry("again", exc=ValueError("x")), Retry("later")):
            for way in ("on_retry", "on_failure"):
                request = counting(PlainRequest, tally)()
                accepted(request)
                getattr(request, way)(failure(error))
        assert (tally.rows["shop.pay"].count, told) == (2, ["shop.pay"] * 2)
        assert (tally.succeeded, tally.failed) == (0, 0)
        assert tally.take() == {"shop.pay": Ran(failed=2)}

    def test_what_could_not_be_told_is_counted_again(self) -> None:
        tally = Tally()
        tally.failure("shop.pay")
        taken = tally.take()
        tally.success("shop.pay")
        tally.put_back(taken)
        assert tally.take() == {"shop.pay": Ran(succeeded=1, failed=1)}

    def test_the_mean_follows_the_newest(self) -> None:
        tally = Tally()
        assert tally.mean_s is None
        tally.success("shop.pay", 10.0)
        assert tally.mean_s == 10.0
        tally.success("shop.pay", 20.0)
        assert tally.mean_s == pytest.approx(11.0)
        tally.success("shop.ask", 1.0)
        assert tally.means == {"shop.pay": pytest.approx(11.0), "shop.ask": 1.0}

    def test_what_acknowledges_early_has_no_duration(self) -> None:
        tally = Tally()
        request = counting(PlainRequest, tally)(acks_late=False)
        accepted(request)
        request.on_success()
        assert (tally.succeeded, tally.mean_s) == (1, None)
