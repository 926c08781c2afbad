"""The message format of kombu's Redis transport, as far as NXS reads or rewrites it.

A message in a queue is a JSON object: `body` (base64), `content-type`, `content-encoding`,
`headers` (Celery's protocol 2: `id`, `task`, …) and `properties` (`delivery_info`, `priority`,
`delivery_tag`). A message that a worker holds is `[message, exchange, routing_key]`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from nxs_tasks.errors import MessageError

#: The header in which a submitter that uses NXS says where it placed a task, and why.
PLACED_HEADER = "nxs"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What NXS wants to know of one message."""

    task_id: str
    task: str
    placed: dict[str, Any] | None  # {"to", "score", "why", "at"}
    redelivered: bool


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


def read(raw: str) -> Envelope:
    """Read a message of a queue. Raises `MessageError`."""
    message = _decode(raw)
    headers, properties = message["headers"], message["properties"]
    placed = headers.get(PLACED_HEADER)
    return Envelope(
        task_id=str(headers.get("id") or properties.get("correlation_id") or ""),
        task=str(headers.get("task") or ""),
        placed=placed if isinstance(placed, dict) else None,
        redelivered=bool(headers.get("redelivered")),
    )


def read_held(raw: str) -> Envelope:
    """Read an entry of an in-flight hash. Raises `MessageError`."""
    try:
        message, _, _ = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        raise _refused(raw) from None
    return read(json.dumps(message))


def placed_at(placed: dict[str, Any]) -> float | None:
    """When a message was placed, s; None where its header has no time."""
    at = placed.get("at")
    try:
        return float(at) if isinstance(at, int | float) and math.isfinite(at) else None
    except OverflowError:
        return None


def reroute(raw: str, queue: str) -> str:
    """The same message, addressed to `queue`: a redelivery returns there, not to its old queue.

    Raises `MessageError` for what is not a message; such a thing is best moved as it is.
    """
    message = _decode(raw)
    info = message["properties"].get("delivery_info")
    if not isinstance(info, dict):
        info = message["properties"]["delivery_info"] = {}
    info.update(exchange="", routing_key=queue)
    return json.dumps(message)
