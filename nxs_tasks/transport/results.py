"""Celery's Redis result backend, for tasks whose message may have been taken from them meanwhile.

What is stored looks as Celery stores it, so stock clients and Flower read it. But what a task of a
fleet stores counts only while its message is still held by the process that took it: each write
checks that in one step (`guarded.py`).

Refused is refused as a whole: no result, no part of a chord, no error handlers. Celery's tracer
stores after the task has run, and has no way to be told "no" that does not look like a failure of
the task. So a refusal is logged, and the tracer goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from celery import states
from celery._state import _task_stack
from celery.backends import redis as stock

from nxs_tasks.errors import SettingError
from nxs_tasks.store import scripts
from nxs_tasks.transport.chords import GuardedPart
from nxs_tasks.transport.fence import Acting, Taken, fence_of
from nxs_tasks.transport.guarded import Desk, Guarded
from nxs_tasks.transport.listening import Listener

log = logging.getLogger(__name__)

#: Tries to store how a task ended, one a second. Its work is done: given up, it would be said to
#: have failed, and a slot that is free takes nothing from a server that is away.
END_TRIES = 600


class FencedMixin:
    """For Celery's Redis backends."""

    ResultConsumer = Listener
    #: As which it is pickled: who reads that need not have NXS.
    celerys_own: type[Any]

    app: Any
    client: Any
    _transport_options: dict[str, Any]
    expires: int | None
    ensure: Callable[..., Any]
    get_key_for_group: Callable[..., bytes]

    @cached_property
    def _desk(self) -> Desk:
        return Desk(self.client, fence_of(self.app))

    @cached_property
    def _commit_script(self) -> Guarded:
        return Guarded(self._desk, scripts.text("commit_result"))

    @cached_property
    def _grow_script(self) -> Guarded:
        return Guarded(self._desk, scripts.text("count_part"))

    @cached_property
    def _chord_part_return_script(self) -> GuardedPart:
        return GuardedPart(self._desk, stock.CHORD_PART_RETURN_LUA)

    @property
    def retry_policy(self) -> dict[str, Any]:
        """How often a write is tried while the server is away; of an end of a task, for longer."""
        policy: dict[str, Any] = super().retry_policy  # type: ignore[misc]
        # Not where a worker's main process stores it, which has more to do.
        of_a_task = _task_stack.stack and fence_of(self.app).acting() is not None
        if "retry_policy" in self._transport_options or not of_a_task:
            return policy
        return {**policy, "max_retries": END_TRIES}

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: who waits for the result subscribes then."""

    # one state

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a state. Raises `Taken`, except for the note that the task was started."""
        fence, store = self._desk.fence, super().store_result  # type: ignore[misc]
        with fence.on_behalf_of(request) as acting:
            if acting is not None:
                acting.confirmed = False
            try:
                stored = store(task_id, result, state, traceback, request=request, **kwargs)
                if acting is not None and not acting.confirmed:
                    # A success is there already, so Celery has written nothing.
                    self.ensure(fence.ask, (acting,))
            except Taken as error:
                _tell(acting, error)
                if state != states.STARTED:
                    raise
                return result
            return stored

    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        if self._desk.fence.acting() is None:
            super()._set(key, value, expires)  # type: ignore[misc]
        else:
            kept = self.expires if expires is None else expires
            self._commit_script(keys=[key], args=[value, kept or 0])

    # the end of a task

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store a success, and count it in its chord."""
        mark = super().mark_as_done  # type: ignore[misc]
        self._unless_taken(request, mark, task_id, result, request, store_result, state)

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, count it in its chord, fail its successors, call error handlers."""
        mark = super().mark_as_failure  # type: ignore[misc]

        def checked(*args: Any) -> None:
            acting = self._desk.fence.acting()
            if acting is not None and not store_result and _has_followers(request):
                self.ensure(self._desk.fence.ask, (acting,))
            mark(*args)

        arguments = (task_id, exc, traceback, request, store_result, call_errbacks, state)
        self._unless_taken(request, checked, *arguments)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: Any = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store that a task is not run, or was ended, and count it in its chord."""
        mark = super().mark_as_revoked  # type: ignore[misc]
        self._unless_taken(request, mark, task_id, reason, request, store_result, state)

    def mark_as_retry(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """Store that a task will be tried again."""
        mark = super().mark_as_retry  # type: ignore[misc]
        return self._unless_taken(
            request, mark, task_id, exc, traceback, request, store_result, state
        )

    def _unless_taken(self, request: Any, mark: Callable[..., Any], *args: Any) -> Any:
        with self._desk.fence.on_behalf_of(request) as acting:
            try:
                return mark(*args)
            except Taken as error:
                _tell(acting, error)
                return None

    # chords

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a part of a chord; whoever counts the last one starts the body. Raises `Taken`."""
        count = super().on_chord_part_return  # type: ignore[misc]
        with self._desk.fence.on_behalf_of(request) as acting:
            try:
                count(request, state, result, **kwargs)
            finally:
                if acting is not None:
                    acting.starts_body = False

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """Make a chord larger by one part. Raises `Taken`."""
        self._grow_script(keys=[self.get_key_for_group(group_id, ".t")], args=[])

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts a chord has. Raises `Taken`, `SubmissionRejected`."""
        self._in_time(partial(super().set_chord_size, group_id, chord_size))  # type: ignore[misc]

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Keep the structure of a chord that is about to be sent. Raises as `set_chord_size`.

        Looks first whether the backend takes a write: afterwards parts would be on their way.
        """
        keep = super().apply_chord  # type: ignore[misc]

        def ask_and_keep() -> None:
            # A write: there are servers that answer, and take none.
            self.client.set(self.get_key_for_group(header_result_args[0], ".asked"), 1, px=1)
            keep(header_result_args, body, **kwargs)

        self._in_time(ask_and_keep)

    def _in_time(self, call: Callable[[], Any]) -> None:
        fence = self._desk.fence
        fence.check()
        fence.in_time(call, at_the_broker=self._desk.one_server)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        reduce: Any = super().__reduce__
        rebuild, (_, *rest) = reduce(args, kwargs)
        return rebuild, (self.celerys_own, *rest)


class FencedRedisBackend(FencedMixin, stock.RedisBackend):
    """For `redis://`, `rediss://`, `redis+socket://`."""

    celerys_own = stock.RedisBackend


class FencedSentinelBackend(FencedMixin, stock.SentinelBackend):
    """For `sentinel://`."""

    celerys_own = stock.SentinelBackend


#: Celery's names of backends, and what they mean for an app with a fleet.
BACKENDS = {
    "redis": f"{__name__}:{FencedRedisBackend.__name__}",
    "rediss": f"{__name__}:{FencedRedisBackend.__name__}",
    "sentinel": f"{__name__}:{FencedSentinelBackend.__name__}",
}


def fence_results(app: Any) -> str:
    """Have Celery take our backends for names of its own; returns which names.

    What the app itself has put in place of a name stays. Raises `SettingError` if the app has made
    its backend already.
    """
    if type(app._backend) in (stock.RedisBackend, stock.SentinelBackend):
        raise SettingError(
            f"the result backend of the Celery app {app.main!r} was used before `Fleet(app)`: "
            "put that line directly behind the app"
        )
    taken_for = {**BACKENDS, **app.loader.override_backends}
    app.loader.override_backends = taken_for
    return ", ".join(name for name, ours in BACKENDS.items() if taken_for[name] == ours)


def why_unfenced(app: Any) -> str:
    """Why results of this app are stored without a check; "" if they are checked, or not stored."""
    backend = app.backend
    if isinstance(backend, FencedMixin) or backend.as_uri() == "disabled://":
        return ""
    return (
        f"result_backend is {type(backend).__name__}, which NXS does not know: a process that was "
        "taken for dead and wakes later may store the result of a task that ran elsewhere meanwhile"
    )


def _has_followers(request: Any) -> bool:
    return bool(request and (request.chord or request.chain or request.errbacks))


def _tell(acting: Acting | None, error: Taken) -> None:
    if acting is not None and not acting.told:
        acting.told = True
        log.warning("result of %s refused: %s", acting, error)
