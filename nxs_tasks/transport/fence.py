"""On whose behalf a process acts, and whether that still counts.

A task acts by the delivery of its message. While the token of that delivery lies in the in-flight
hash of its process, the message is this process's; once it was taken from there, what the task
stores, counts or sends is refused. Whoever acts without such a token is not asked: a client, a
stock worker, a task that acknowledges early (its message is nobody's any more, so nobody else will
ever run it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from celery._state import _task_stack
from celery.exceptions import Ignore

from nxs_tasks.breaker import Breaker
from nxs_tasks.clock import Clock
from nxs_tasks.deadline import within
from nxs_tasks.errors import (
    BrokerError,
    BrokerUnreachable,
    SettingError,
    Stale,
    SubmissionRejected,
)
from nxs_tasks.store import FleetStore
from nxs_tasks.store.guard import is_held
from nxs_tasks.store.token import Token, parse

log = logging.getLogger(__name__)

#: Where `Fleet(app)` leaves it on the app.
ATTRIBUTE = "nxs_fence"
#: A chord is counted where results are kept.
NOT_SENT = "a chord is not sent, because its parts cannot be counted"
#: Longest wait for an answer before something is sent, s.
ANSWER_S = 0.2


class Taken(Stale, Ignore):
    """The message of a running task was taken from its process: what the task commits is refused.

    To Celery it is its own `Ignore`: a task that it ends leaves no result and calls no handlers.
    """


class Freshness(Protocol):
    """What tells without a round trip that nobody has given this process up."""

    def fresh(self, epoch: int, now: float) -> bool:
        """Whether a process of that epoch was confirmed lately; `now` is `Clock.elapsed`, s."""

    def epoch(self) -> int | None:
        """The epoch that was confirmed last, or None if there is none."""


@dataclass(slots=True, eq=False)
class Acting:
    """One task that acts by a delivery."""

    token: Token
    task: str
    id: str
    #: The message was delivered before.
    redelivered: bool = False
    #: Something was written for it, so its message was held a moment ago.
    confirmed: bool = False
    #: It is the one that starts the body of its chord. Celery's own claim guards what follows.
    starts_body: bool = False
    #: A refusal was logged.
    told: bool = False

    def __str__(self) -> str:
        return f"{self.task}[{self.id}]"


_ACTING: ContextVar[Acting | None] = ContextVar("nxs_acting", default=None)


class Fence:
    """Asks whether what a task commits counts. One for each app; safe to use in any thread."""

    def __init__(
        self,
        app: Any,
        store: Callable[[], FleetStore],
        clock: Clock,
        breaker: Breaker,
        answer_within: float,
    ) -> None:
        """`answer_within` (s) is how long a submission may wait for the result backend."""
        self._app = app
        self._breaker = breaker
        self._answer_within = answer_within
        #: Where messages are held.
        self.store = store
        self._clock = clock
        #: Set by a worker before its pool forks.
        self.lease: Freshness | None = None
        #: Of which instance that is.
        self.instance = ""

    def place(self) -> tuple[str, int] | None:
        """Instance and epoch of the worker of which this process is part, while it is known."""
        epoch = None if self.lease is None else self.lease.epoch()
        return None if epoch is None else (self.instance, epoch)

    def acting(self) -> Acting | None:
        """Who acts in this thread, or None if nobody has to be asked."""
        bound = _ACTING.get()
        if bound is not None:
            return None if bound.starts_body else bound
        # A task may call others in its own process; it is the one that a worker started.
        for task in reversed(_task_stack.stack):
            acting = self.acting_by(task.request)
            if acting is not None:
                return acting
        return None

    def acting_by(self, request: Any) -> Acting | None:
        """Who acts by a request of Celery's (`Task.request`), or None as above."""
        properties = getattr(request, "properties", None)
        token = parse(properties.get("delivery_tag")) if isinstance(properties, Mapping) else None
        if token is None:
            return None
        name = str(getattr(request, "task", "") or "")
        task = self._app.tasks.get(name)
        if task is not None and not task.acks_late:
            return None
        where = getattr(request, "delivery_info", None)
        again = isinstance(where, Mapping) and bool(where.get("redelivered"))
        return Acting(token, name, str(request.id), again)

    @contextmanager
    def on_behalf_of(self, request: Any) -> Iterator[Acting | None]:
        """Act by a request in this thread; by one without a token, go on acting as before."""
        bound, asked = _ACTING.get(), self.acting_by(request)
        if bound is None or (asked is not None and asked.token != bound.token):
            bound = asked if asked is not None else self.acting()
        reset = _ACTING.set(bound)
        try:
            yield None if bound is None or bound.starts_body else bound
        finally:
            _ACTING.reset(reset)

    def require(self, acting: Acting) -> None:
        """Raises `Taken` if the message is no longer held, `BrokerError` if that cannot be told."""
        if not is_held(self.store(), acting.token):
            raise taken(acting)
        acting.confirmed = True

    def ask(self, acting: Acting) -> None:
        """As `require`; no answer is a `ConnectionError`, which Celery's backends try again."""
        try:
            self.require(acting)
        except BrokerUnreachable as error:
            raise ConnectionError(str(error)) from error

    def in_time(self, call: Callable[[], Any], *, at_the_broker: bool) -> None:
        """Do at the result backend what a submission needs. Raises `SubmissionRejected`."""
        if at_the_broker and self._breaker.open:
            raise SubmissionRejected(f"{NOT_SENT}: {self._breaker.why}")
        try:
            within(self._answer_within, call)
        except TimeoutError:
            reason = f"the result backend does not answer within {self._answer_within:g} s"
            raise SubmissionRejected(f"{NOT_SENT}: {reason}") from None

    def check(self) -> None:
        """Before something is sent. Raises `Taken` if the acting task's message is taken.

        No round trip while the heartbeat is fresh. A broker that does not answer is no reason to
        refuse: what is sent meets the same broker.
        """
        acting = self.acting()
        if acting is None or self._is_fresh(acting) or self._breaker.open:
            return
        try:
            # A submission answers within its deadline, of which this is a small part.
            within(ANSWER_S, partial(self.require, acting))
        except Taken as error:
            log.warning("%s sends nothing more: %s", acting, error)
            raise
        except (BrokerError, TimeoutError) as error:
            log.warning("%s sends something, and may have lost its message: %s", acting, error)

    def _is_fresh(self, acting: Acting) -> bool:
        now = self._clock.elapsed()
        return self.lease is not None and self.lease.fresh(acting.token.epoch, now)

    def route(self, name: str, *_: Any, **__: Any) -> None:
        """A router of Celery's, the first of all: it routes nothing, and checks every publish."""
        # Outside of any task there is nobody to ask: most who publish many are there.
        if _task_stack.stack or _ACTING.get() is not None:
            self.check()


def taken(acting: Acting) -> Taken:
    """The error that says it."""
    return Taken(f"the message was taken from this process (epoch {acting.token.epoch})")


def fence_of(app: Any) -> Fence:
    """The fence that `Fleet(app)` left on the app. Raises `SettingError` if there is none."""
    found = getattr(app, ATTRIBUTE, None)
    if not isinstance(found, Fence):
        raise SettingError(f"the Celery app {app.main!r} has no fleet: add `Fleet(app)` to it")
    return found
