"""What Celery does not say of an ending, told to the tenure before the message is settled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from nxs_tasks.transport.checkpoint import Moved
from nxs_tasks.worker.endings import EndingMixin
from tests.unit.builders import case


class Told:
    """Stands where the tenure is, and remembers."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.unfinished: set[str] = set()
        self.moving: set[str] = set()
        self.ended: list[tuple[str, bool]] = []

    def end(self, token: str, message: Any, *, requeue: bool) -> None:
        self.ended.append((token, requeue))


class PlainRequest:
    """How Celery's `Request` settles a message at the end of a task."""

    def __init__(self) -> None:
        self.message = SimpleNamespace(delivery_tag="w1|1|1")
        self.acknowledged = False

    def acknowledge(self) -> None:
        self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        self.acknowledged = True

    def on_failure(self, exc_info: Any) -> None:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Reject):
            self.reject(requeue=error.requeue)
        else:
            self.acknowledge()

    def on_retry(self, exc_info: Any) -> None:
        self.acknowledge()


class FleetRequest(EndingMixin, PlainRequest):
    def __init__(self) -> None:
        super().__init__()
        self.tenure: Any = Told()


def failed(error: BaseException, wrapped: bool = False) -> Any:
    return SimpleNamespace(exception=ExceptionWithTraceback(error, None) if wrapped else error)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "requeued"),
    [
        case("a retry that could not be sent", Reject(OperationalError("gone"), False), True),
        case("rejected by the task", Reject("bad input", False), False),
        case("rejected by the task for an error of its own", Reject(OSError("no"), False), False),
        case("asked for again by the task", Reject("later", True), True),
        case("an error", ValueError("no"), False),
    ],
)
def test_what_becomes_of_the_message(error: Exception, requeued: bool, wrapped: bool) -> None:
    request = FleetRequest()
    request.on_failure(failed(error, wrapped))
    assert request.tenure.ended == [("w1|1|1", requeued)]
    assert request.tenure.lost == set()


@pytest.mark.parametrize("error", [WorkerLostError("killed"), SystemExit(1), KeyboardInterrupt()])
def test_the_death_of_a_pool_process_counts_as_a_loss(error: BaseException) -> None:
    request = FleetRequest()
    request.on_failure(failed(error))
    assert request.tenure.lost == {"w1|1|1"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_task_that_stops_at_a_checkpoint_goes_on_elsewhere(wrapped: bool) -> None:
    request = FleetRequest()
    request.on_failure(failed(Moved("goes on with w2"), wrapped))
    assert request.tenure.moving == {"w1|1|1"}
    assert request.tenure.ended == [("w1|1|1", True)]
    assert request.tenure.lost == set()


def test_a_retry_is_no_end() -> None:
    request = FleetRequest()
    request.on_retry(failed(ValueError("again")))
    assert request.tenure.unfinished == {"w1|1|1"}
    assert request.tenure.ended == [("w1|1|1", False)]


def test_an_end_is_told_once() -> None:
    request = FleetRequest()
    request.acknowledge()
    request.acknowledge()
    request.reject(requeue=True)
    assert request.tenure.ended == [("w1|1|1", False)]


def test_what_is_due_needs_no_timer() -> None:
    assert FleetRequest().eta is None
