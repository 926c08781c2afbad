"""The message format of kombu's Redis transport, as far as NXS reads or rewrites it.

A message in a queue is a JSON object: `body` (base64), `content-type`, `content-encoding`,
`headers` (Celery's protocol 2: `id`, `task`, …) and `properties` (`delivery_info`, `priority`,
`delivery_tag`). A message that a worker holds is `[message, exchange, routing_key]`.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nxs_tasks.clock import iso
from nxs_tasks.errors import MessageError
from nxs_tasks.model.decision import Placement

#: The header in which a submitter that uses NXS says where it placed a task, and why.
PLACED_HEADER = "nxs"
#: The header that counts the processes which held a task and died: [{"instance", "epoch", "at"}].
LOST_HEADER = "nxs_lost"
#: The header of a message that a migration moved, the last one: {"from", "at"}.
MOVED_HEADER = "nxs_moved"
#: The header with the `unique_key` of a task: while it is not done, there is no second of that key.
UNIQUE_HEADER = "nxs_unique"
#: The header of a periodic task: the term of the beat that sent it.
TERM_HEADER = "nxs_term"


#: kombu's highest priority.
MAX_PRIORITY = 9
#: In an entry of an in-flight hash, between the message and the queue.
_AFTER_MESSAGE = ', "", '


@dataclass(frozen=True, slots=True)
class Envelope:
    """What NXS wants to know of one message."""

    task_id: str
    task: str
    placed: dict[str, Any] | None  # {"to", "score", "why", "at"}, and "key" if it has one
    redelivered: bool
    lost: tuple[Mapping[str, Any], ...] = ()  # who held it and died: {"instance", "epoch", "at"}
    group: str = ""
    unique_key: str = ""
    eta: str = ""  # ISO time; "" = at once
    ignores_result: bool = False
    priority: int = 0
    age: int = 0  # how many messages of its id came before it
    moved: Mapping[str, Any] | None = None  # by the last migration: {"from", "at"}


def age_of(headers: Mapping[str, Any]) -> int:
    """How many messages of the same id came before one: its retries and replacements."""
    found = [headers.get("retries"), headers.get("replaced_task_nesting")]
    return sum(n for n in found if isinstance(n, int) and 0 < n < 2**31)


def placed_header(placement: Placement, at: float) -> dict[str, Any]:
    """The value of `PLACED_HEADER`; `at` is when it was placed, s."""
    found = {
        "to": placement.instance,
        "score": None if placement.score is None else round(placement.score, 4),
        "why": placement.reason,
        "at": at,
    }
    return {**found, "key": placement.key} if placement.key else found


def _refused(raw: str) -> MessageError:
    # Never a part of it: even a broken message may hold somebody's arguments.
    return MessageError(f"not a message of kombu ({len(raw)} characters)")


def _decode(raw: str) -> dict[str, Any]:
    try:
        message = json.loads(raw)
        headers, properties = message["headers"], message["properties"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _refused(raw) from None
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise _refused(raw)
    return dict(message)


def _encode(message: Any) -> str:
    try:
        return json.dumps(message)
    except RecursionError:
        # Writing needs more of the stack than reading.
        raise MessageError("a message is nested too deeply to be written again") from None


def as_text(value: object) -> str:
    """`value` if it is a text that Redis can have, else "": JSON can name halves of characters."""
    try:
        return value if isinstance(value, str) and value.encode() else ""
    except UnicodeEncodeError:
        return ""


def _shown(value: object) -> str:
    return as_text(str(value or ""))


def read(raw: str) -> Envelope:
    """Read a message of a queue. Raises `MessageError`."""
    return _envelope(_decode(raw))


def _envelope(message: dict[str, Any]) -> Envelope:
    headers, properties = message["headers"], message["properties"]
    if "task" not in headers:
        headers = {**_of_protocol_1(message), **headers}
    placed, moved = headers.get(PLACED_HEADER), headers.get(MOVED_HEADER)
    return Envelope(
        task_id=_shown(headers.get("id") or properties.get("correlation_id")),
        task=_shown(headers.get("task")),
        placed=placed if isinstance(placed, dict) else None,
        redelivered=bool(headers.get("redelivered")),
        lost=tuple(_losses(headers)),
        group=_shown(headers.get("group")),
        unique_key=_shown(headers.get(UNIQUE_HEADER)),
        eta=_shown(headers.get("eta")),
        ignores_result=bool(headers.get("ignore_result")),
        priority=_priority(properties),
        age=age_of(headers),
        moved=moved if isinstance(moved, dict) else None,
    )


def _of_protocol_1(message: dict[str, Any]) -> dict[str, Any]:
    """What Celery's older protocol says in the body; nothing if that cannot be read."""
    try:
        body = b64decode(message["body"])
        found = json.loads(body)
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    known = ("task", "id", "eta", "retries")
    return {name: found[name] for name in known if name in found} if isinstance(found, dict) else {}


def _priority(properties: dict[str, Any]) -> int:
    # As kombu reads it.
    try:
        return min(max(int(properties.get("priority") or 0), 0), MAX_PRIORITY)
    except (TypeError, ValueError, OverflowError):
        return 0


def _losses(headers: dict[str, Any]) -> list[dict[str, Any]]:
    # Written by us, but anybody may write to a queue.
    found = headers.get(LOST_HEADER)
    return [loss for loss in found if isinstance(loss, dict)] if isinstance(found, list) else []


def read_held(raw: str) -> Envelope:
    """Read an entry of an in-flight hash. Raises `MessageError`."""
    try:
        message, _, _ = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        raise _refused(raw) from None
    return read(_encode(message))


def placed_at(placed: Mapping[str, Any]) -> float | None:
    """When a message was placed (or moved), s; None where its header has no time."""
    at = placed.get("at")
    try:
        return float(at) if isinstance(at, int | float) and math.isfinite(at) else None
    except OverflowError:
        return None


def moment(at: object) -> str:
    """A time of a header for people; "at an unknown time" for what is none."""
    try:
        return iso(float(at)) if isinstance(at, int | float) else "at an unknown time"
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"


def reroute(raw: str, queue: str) -> str:
    """The same message, addressed to `queue`: a redelivery returns there, not to its old queue.

    Raises `MessageError` for what is not a message; such a thing is best moved as it is.
    """
    message = _decode(raw)
    _delivery_info(message).update(exchange="", routing_key=queue)
    return _encode(message)


def migrated(
    raw: str, source: str, queue: str, at: float, why_not: Callable[[Envelope], str]
) -> tuple[Envelope, str, str]:
    """What a message says, and the same one moved to `queue`; or, without that, why it stays.

    Read once, because a migration asks this of thousands. `source` is the instance that gives it,
    `at` the time of the move, s. Raises `MessageError`.
    """
    message = _decode(raw)
    envelope = _envelope(message)
    reason = why_not(envelope)
    if reason:
        return envelope, "", reason
    _delivery_info(message).update(exchange="", routing_key=queue)
    message["headers"][MOVED_HEADER] = {"from": source, "at": at}
    return envelope, _encode(message), ""


def returned(
    raw: str, queue: str, loss: Mapping[str, Any] | None = None, *, pinned: bool = False
) -> str:
    """The same message, addressed to `queue` and marked as delivered before.

    `loss` is added to the list of those who held it and died. `pinned` it stays there, as what its
    sender has put there by name. Raises `MessageError`.
    """
    message = _decode(raw)
    _delivery_info(message).update(exchange="", routing_key=queue, redelivered=True)
    message["headers"]["redelivered"] = True
    if loss is not None:
        message["headers"][LOST_HEADER] = [*_losses(message["headers"]), loss]
    if pinned:
        message["headers"].pop(PLACED_HEADER, None)
    return _encode(message)


def without_losses(raw: str) -> str:
    """The same message with a count of 0: somebody has looked at it and gives it another try.

    Raises `MessageError`.
    """
    message = _decode(raw)
    message["headers"].pop(LOST_HEADER, None)
    return _encode(message)


def in_chord(raw: str) -> bool:
    """Whether a chord waits for this task. True also if its body is none that can be read here.

    Only JSON is read: another serializer may run code that lies in the message. Raises
    `MessageError` for what is not a message.
    """
    message = _decode(raw)
    if not message["headers"].get("group"):
        return False  # Celery makes each part of a chord a member of a group
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = b64decode(body)
        _, _, embedded = json.loads(body)
        return bool(embedded.get("chord"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return True


def _delivery_info(message: dict[str, Any]) -> dict[str, Any]:
    info = message["properties"].get("delivery_info")
    if isinstance(info, dict):
        return info
    made: dict[str, Any] = {}
    message["properties"]["delivery_info"] = made
    return made


def unwrap(entry: str) -> tuple[str, str]:
    """Message and queue of an entry of an in-flight hash, the message as it was in the queue.

    Raises `MessageError` for what neither NXS nor kombu has written.
    """
    # As the claim script writes it: the message must come back as it was, even if it is none.
    head, _, queue = entry.rpartition(_AFTER_MESSAGE)
    if head.startswith("[") and queue.endswith("]"):
        # Else the mark was a part of a message that kombu has wrapped.
        with suppress(ValueError, RecursionError):
            return head[1:], str(json.loads(queue[:-1]))
    try:
        message, _, routing_key = json.loads(entry)
    except (ValueError, TypeError, RecursionError):
        raise _refused(entry) from None
    return _encode(message), str(routing_key)
