"""What a worker looks at before Celery gets a message that it has taken.

Celery drops what it does not understand or know, and keeps what is not due in its memory. Here
nothing is dropped and nothing is kept: a broken message goes into quarantine with the reason; a
task that this worker does not know goes to one that does, or is parked until there is one; what is
not due waits in Redis; what is paused waits there too; and of what is cancelled Celery is told, so
that it announces and acknowledges it as revoked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC
from math import inf
from typing import Any, Protocol

from celery.utils.collections import LimitedSet
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker import state
from kombu.serialization import prepare_accept_content

from nxs_tasks.model.instance import Profile
from nxs_tasks.model.shelf import DELAYED, PARKED, Shelved
from nxs_tasks.policy.fleet.readiness import knower
from nxs_tasks.store.guard import is_held
from nxs_tasks.store.inflight import Move
from nxs_tasks.store.message import PLACED_HEADER, UNIQUE_HEADER, as_text, read, reroute
from nxs_tasks.store.token import parse
from nxs_tasks.transport.tenure import Claimed, Tenure

log = logging.getLogger(__name__)

#: Parts of a protocol 2 body: args, kwargs, embedded callbacks.
BODY_PARTS = 3
#: Where Celery notes what a running task has started. With one in the message no result is stored.
CHILDREN = "_children"
#: What a body may not say, because it would count instead of what the message says.
NOT_IN_BODY = frozenset({CHILDREN, "delivery_info", "id", "properties", "task"})
#: Levels of lists and mappings. Celery pickles what it gives to its pool, and Python cannot pickle
#: much deeper than this.
DEEPEST = 300


class Intents(Protocol):
    """What people have asked for (`worker.intents`)."""

    def is_cancelled(self, task_id: str) -> bool:
        """Whether a task is not to run."""

    def is_paused(self, task: str) -> bool:
        """Whether tasks of that name wait."""


class Gate:
    """Decides whether Celery gets a message; puts it elsewhere if not."""

    def __init__(
        self,
        app: Any,
        tenure: Tenure,
        intents: Intents,
        profile: Profile,
        is_fresh: Callable[[int], bool] = lambda epoch: True,
        most_keys: int = 1,
    ) -> None:
        """`most_keys` affinity keys are noted as those for which the cache is warm."""
        self._app = app
        self._is_fresh = is_fresh
        self._tenure = tenure
        self._intents = intents
        self._unable = profile.unable
        self._most_keys = most_keys
        self._accept = prepare_accept_content(app.conf.accept_content)
        #: What Celery was told of here, as long as it remembers that.
        self._revoked = LimitedSet(maxlen=state.REVOKES_MAX, expires=state.REVOKE_EXPIRES)

    def __call__(self, claimed: Claimed) -> bool:
        """True if the message is for Celery now. Raises `BrokerError`."""
        message = claimed.message
        if message is None:
            self._tenure.quarantine(claimed, "is not a message of kombu")
            return False
        message.accept = self._accept
        broken = why_broken(message) or why_too_deep(claimed.raw, message)
        if broken:
            log.error("a message is put into quarantine: %s", broken)
            self._tenure.quarantine(claimed, broken)
            return False
        fields = _fields(message)
        return self._may_run_now(claimed, str(fields["task"]), str(fields["id"]))

    def _may_run_now(self, claimed: Claimed, task: str, task_id: str) -> bool:
        if task not in self._app.tasks or task in self._unable:
            # Also if it is cancelled: Celery revokes only what it knows.
            self._send_to_who_knows(claimed, task)
            return False
        if claimed.intents and self._intents.is_cancelled(task_id):
            state.revoked.add(task_id)
            self._revoked.add(task_id)
            return True
        if task_id in self._revoked:
            # Celery would remember for hours what was taken back.
            self._revoked.discard(task_id)
            state.revoked.discard(task_id)
        if claimed.intents and self._intents.is_paused(task):
            entry = self._entry(claimed, claimed.at, "is paused")
            if self._tenure.shelve_paused(claimed, entry):
                return False
        if self._is_early(claimed) or not self._is_held(claimed):
            return False
        placed = _fields(claimed.message).get(PLACED_HEADER)
        if isinstance(placed, dict) and as_text(placed.get("key")):
            self._tenure.use_key(placed["key"], self._most_keys)
        return True

    def _is_held(self, claimed: Claimed) -> bool:
        """Whether it was not given to others while this process was frozen.

        Asked only if no heartbeat was confirmed lately: a late copy is not even started.
        """
        token = parse(claimed.token)
        if token is None or self._is_fresh(token.epoch) or is_held(self._tenure.store, token):
            return True
        log.warning("%s was given to others before it was started here", claimed.token)
        return False

    def _send_to_who_knows(self, claimed: Claimed, task: str) -> None:
        store = self._tenure.store
        found = knower(task, store.snapshot(), claimed.queue, but=self._tenure.instance)
        if found is None:
            log.warning("no instance knows %s: the task is parked", task)
            self._shelve(claimed, PARKED, claimed.at, "no instance knows it")
            return
        queue = store.keys.own_queue(found)
        token = parse(claimed.token)
        assert token is not None
        to = store.wire.list_of(queue, read(claimed.raw).priority)
        move = Move(claimed.token, to, reroute(claimed.raw, queue))
        self._tenure.inflight.relocate(token.instance, token.epoch, [move])

    def _is_early(self, claimed: Claimed) -> bool:
        fields = _fields(claimed.message)
        if not fields.get("eta"):
            return False
        due = _timestamp(fields["eta"], self._app.timezone)
        # By the server's clock, which also says when it is due: two clocks would disagree.
        if due > claimed.at:
            self._shelve(claimed, DELAYED, due, "waits for its time")
            return True
        return False

    def _shelve(self, claimed: Claimed, shelf: str, at: float, reason: str) -> None:
        self._tenure.shelve(claimed, shelf, self._entry(claimed, at, reason))

    def _entry(self, claimed: Claimed, at: float, reason: str) -> Shelved:
        envelope = read(claimed.raw)
        queue = self._tenure.home(envelope.task, claimed.queue)
        return Shelved(
            id=claimed.token,
            at=at,
            list=self._tenure.store.wire.list_of(queue, envelope.priority),
            message=reroute(claimed.raw, queue),
            reason=reason,
            task_id=envelope.task_id,
            task=envelope.task,
        )


def why_broken(message: Any) -> str:
    """What makes a message one that Celery cannot run; "" if it can.

    `message` is kombu's, with `accept` set. Nothing of what it says is repeated: it may be secret.
    """
    if not isinstance(message.headers, dict):
        return "its headers are no mapping"
    if message.errors:
        # Celery acknowledges what kombu could not unpack.
        return f"its body cannot be unpacked: {message.errors[0][0].__name__}"
    try:
        payload = message.payload
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything
        return f"its body cannot be read: {type(error).__name__}"
    if not isinstance(message.delivery_info, dict):
        return "its delivery_info is no mapping"
    fields = _fields(message)
    if not isinstance(fields, dict):
        return "it names no task"
    return (
        _why_texts_broken(fields)
        or _why_times_broken(fields)
        or _why_body_broken(payload, message.headers)
    )


def _why_texts_broken(fields: dict[str, Any]) -> str:
    for name in ("task", "id"):
        if not as_text(fields.get(name)):
            return f"its {name} is not a text"
    for name in ("shadow", UNIQUE_HEADER):
        if fields.get(name) and not as_text(fields[name]):
            return f"its {name} is not a text"
    return ""


def _why_times_broken(fields: dict[str, Any]) -> str:
    for name in ("eta", "expires"):
        value = fields.get(name)
        try:
            if value is not None:
                _timestamp(value, UTC)
        except (ValueError, TypeError, AttributeError, OverflowError):
            return f"its {name} is not a time"
    limits = fields.get("timelimit")
    if limits is not None and not (
        isinstance(limits, list | tuple)
        and len(limits) == len(("hard", "soft"))
        and all(limit is None or _is_limit(limit) for limit in limits)
    ):
        return "its timelimit is not two numbers"
    if not isinstance(fields.get("retries"), int | None):
        return "its retries are not a number"
    return ""


def _is_limit(number: Any) -> bool:
    # One that is no number would bring the timers of the whole worker out of order.
    return isinstance(number, int | float) and 0 <= number < inf


def _why_body_broken(payload: Any, headers: dict[str, Any]) -> str:
    for name, kind in (("stamped_headers", list), ("stamps", dict)):
        if not isinstance(headers.get(name), kind | None):
            return f"its {name} are of the wrong kind"
    if not all(name == "" or as_text(name) for name in headers.get("stamped_headers") or ()):
        return "the names of its stamps are not texts"
    if "task" not in headers or (isinstance(payload, dict) and "args" in payload):
        args, kwargs = payload.get("args", []), payload.get("kwargs", {})
    elif isinstance(payload, list | tuple) and len(payload) == BODY_PARTS:
        args, kwargs, embed = payload
        why = _why_embed_broken(embed)
        if why or CHILDREN in headers:
            return why or f"it says what its {CHILDREN} are"
    else:
        return "its body is not arguments, keyword arguments and callbacks"
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return "its arguments are not a list and a mapping"
    return ""


def _why_embed_broken(embed: Any) -> str:
    if embed is None:
        return ""
    if not isinstance(embed, dict):
        return "its embedded callbacks are no mapping"
    for name in ("callbacks", "errbacks", "chain"):
        tasks = embed.get(name) or []
        if not isinstance(tasks, list | tuple) or not all(_is_signature(task) for task in tasks):
            return f"its {name} are no list of tasks"
    if embed.get("chord") and not _is_signature(embed["chord"]):
        return "its chord is no task"
    return "its callbacks are more than that" if NOT_IN_BODY & embed.keys() else ""


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)


def why_too_deep(raw: str, message: Any) -> str:
    """What is nested so deeply that the pool could not be given it; "" if nothing is."""
    body = message.body.decode("latin-1") if isinstance(message.body, bytes) else ""
    json_body = body if "json" in str(message.content_type) else ""
    # The cheap test first: nothing can be nested deeper than it has brackets.
    if all(text.count("[") + text.count("{") <= DEEPEST for text in (raw, json_body)):
        return ""
    level, above = [message.headers, message.payload if json_body else ()], DEEPEST
    while level and above:
        level = [child for container in level for child in _containers_in(container)]
        above -= 1
    return f"it is nested more than {DEEPEST} levels deep" if level else ""


def _containers_in(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value
    return [child for child in children if isinstance(child, dict | list | tuple)]


def _fields(message: Any) -> Any:
    """Where a task's name and times are: the headers, or in the older protocol the body."""
    return message.headers if "task" in message.headers else message.payload


def _timestamp(text: Any, zone: Any) -> float:
    return float(maybe_make_aware(maybe_iso8601(text), zone).timestamp())
