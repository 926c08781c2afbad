"""Counts what became of the tasks of this worker, in its main process.

Celery's signals for success and failure fire in the pool's children, and its events only when
somebody asked for them. Its documented extension point for what happens to a task in the main
process is the task's `Request` class, so the counting is a mixin of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, Terminated
from celery.utils.imports import symbol_by_name

from nxs_tasks.clock import SYSTEM
from nxs_tasks.model.durations import Durations

#: Ends of a task that say nothing about the instance.
NEITHER = (Ignore, Reject, Retry, Terminated)


#: Weight of the newest task in the mean duration.
SMOOTHING = 0.1

#: Names of the last failures that are remembered.
REMEMBERED = 100


@dataclass(slots=True)
class Row:
    """Failures since the last success: how many, and when the first of them was, monotonic, s."""

    count: int
    since: float


@dataclass(slots=True)
class Ran:
    """What became of the tasks of one name."""

    succeeded: int = 0
    failed: int = 0
    #: How long those took that succeeded and do not acknowledge early.
    took: Durations = field(default_factory=Durations, compare=False)

    @property
    def all(self) -> int:
        """How many ended."""
        return self.succeeded + self.failed

    def add(self, other: Ran) -> None:
        """All of the other's too."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.took.merge(other.took)


class Tally:
    """Totals since the process started, and by name what came since it was last taken.

    Used by the worker's main thread, and by one that looks at it.
    """

    def __init__(self, now: Callable[[], float] = SYSTEM.monotonic) -> None:
        """`now` is monotonic time, s."""
        self._now = now
        self.succeeded = 0
        self.failed = 0
        #: How long a task took lately, s; None before the first.
        self.mean_s: float | None = None
        #: The same by name.
        self.means: dict[str, float] = {}
        #: By name, the failures since the last success of that name.
        self.rows: dict[str, Row] = {}
        #: Names of what failed since the last success of any, the newest last.
        self.tail: deque[str] = deque(maxlen=REMEMBERED)
        #: Called with the name after each failure, where it is noticed.
        self.on_failure: Callable[[str], None] = lambda task: None
        self._ran: dict[str, Ran] = {}

    def success(self, task: str, seconds: float | None = None) -> None:
        """A task has succeeded, after so long; None for one that has only just begun.

        That is one which acknowledges early. It says nothing about a row of failures.
        """
        self.succeeded += 1
        ran = self._ran.setdefault(task, Ran())
        ran.succeeded += 1
        if seconds is None:
            return
        ran.took.add(seconds)
        self.rows.pop(task, None)
        self.tail.clear()
        self.mean_s = _moved(self.mean_s, seconds)
        self.means[task] = _moved(self.means.get(task), seconds)

    def no_success(self, task: str) -> None:
        """One that was counted as a success has none."""
        self.succeeded -= 1
        self._ran.setdefault(task, Ran()).succeeded -= 1

    def failure(self, task: str) -> None:
        """A task has failed, in a way that it does not declare as expected."""
        self.failed += 1
        self.setback(task)

    def setback(self, task: str) -> None:
        """A task has failed and will be tried again: no end, and yet a sign."""
        self._ran.setdefault(task, Ran()).failed += 1
        row = self.rows.setdefault(task, Row(0, self._now()))
        row.count += 1
        self.tail.append(task)
        self.on_failure(task)

    def put_back(self, taken: Mapping[str, Ran]) -> None:
        """Count again what was taken and could not be told."""
        for task, ran in taken.items():
            self._ran.setdefault(task, Ran()).add(ran)

    def forget_rows(self) -> None:
        """Begin anew: what failed until now has been judged."""
        self.rows.clear()
        self.tail.clear()

    def take(self) -> dict[str, Ran]:
        """By name, what came since the last call."""
        taken, self._ran = self._ran, {}
        return taken


def _moved(mean: float | None, value: float) -> float:
    return value if mean is None else mean + SMOOTHING * (value - mean)


class CountingMixin:
    """Judges a task when it is acknowledged: failed if a failure came before, else succeeded.

    Celery replaces `on_success` with one of its own in a subclass, so success has no other sign
    here than an acknowledgement without a failure. A task that acknowledges early is counted as a
    success first, and corrected when it fails.
    """

    tally: Tally
    task: Any
    acknowledged: bool
    time_start: float | None
    _nxs_judged = ""
    _nxs_started: float | None = None

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        """The pool has started it."""
        self._nxs_started = SYSTEM.monotonic()
        return super().on_accepted(pid, time_accepted)  # type: ignore[misc]

    def acknowledge(self) -> Any:
        """Acknowledge, and count a success if nothing was judged yet."""
        first = not self.acknowledged
        answer = super().acknowledge()  # type: ignore[misc]
        # A task that was revoked before it started is acknowledged and has no start.
        if first and not self._nxs_judged and self.time_start is not None:
            self._nxs_judged = "succeeded"
            self.tally.success(self.task.name, self._nxs_took())
        return answer

    def _nxs_took(self) -> float | None:
        # One that acknowledges early has only just begun.
        if self._nxs_started is None or not self.task.acks_late:
            return None
        return SYSTEM.monotonic() - self._nxs_started

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Count a failure, unless the task declares the error as expected (`throws`)."""
        error = _error_of(exc_info)
        self._nxs_note_retry(error)
        throws = self.task.throws or ()  # Celery takes one class as well as several
        expected = isinstance(error, NEITHER) or isinstance(error, throws)  # noqa: SIM101
        self._nxs_judge(failed=not expected)
        return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]

    def on_retry(self, exc_info: Any) -> Any:
        """A retry is no end yet; one because of an error is a sign."""
        self._nxs_note_retry(_error_of(exc_info))
        self._nxs_judge(failed=False)
        return super().on_retry(exc_info)  # type: ignore[misc]

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Count a hard time limit as a failure."""
        if not soft:
            self._nxs_judge(failed=True)
        return super().on_timeout(soft, timeout)  # type: ignore[misc]

    def _nxs_note_retry(self, error: Any) -> None:
        # Celery tells of a retry by way of `on_failure` too.
        because = isinstance(error, Retry) and error.exc is not None
        if because and not self._nxs_judged:
            self.tally.setback(self.task.name)

    def _nxs_judge(self, failed: bool) -> None:
        if self._nxs_judged == "succeeded":
            self.tally.no_success(self.task.name)
        elif self._nxs_judged:
            return
        self._nxs_judged = "failed" if failed else "neither"
        if failed:
            self.tally.failure(self.task.name)


def _error_of(exc_info: Any) -> Any:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def counting(request_class: Any, tally: Tally, *mixins: type, **attributes: Any) -> Any:
    """`request_class` (a class or its dotted path) with counting, and with further mixins."""
    base = symbol_by_name(request_class)
    return type("CountingRequest", (CountingMixin, *mixins, base), {"tally": tally, **attributes})


def count_tasks(app: Any, tally: Tally, *mixins: type, **attributes: Any) -> None:
    """Make every registered task of the app be counted in this process.

    `mixins` with their `attributes` come between the counting and the task's own request class.
    """
    classes: dict[Any, Any] = {}
    for task in app.tasks.values():
        known = classes.get(task.Request)
        if known is None:
            known = counting(task.Request, tally, *mixins, **attributes)
            classes[task.Request] = known
        task.Request = known
