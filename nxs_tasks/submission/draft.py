"""A task's message, put together as Celery and kombu do it; the way for whatever is not plain.

Celery's own function makes the headers and the body. What follows it in `send_task_message`,
`Producer.publish` and the Redis channel is not to be had without a connection, so it is done here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery.utils.functional import maybe_list
from kombu.compression import compress
from kombu.entity import maybe_delivery_mode
from kombu.serialization import dumps
from kombu.utils import json

from nxs_tasks.store.message import MAX_PRIORITY

#: What Celery's function for messages is told, beside what it is always told.
TOLD = (
    "chain",
    "chord",
    "eta",
    "expires",
    "group_id",
    "group_index",
    "ignore_result",
    "parent_id",
    "replaced_task_nesting",
    "retries",
    "root_id",
    "shadow",
    "soft_time_limit",
    "time_limit",
)
#: What it is told too, and what Celery then writes into the properties as well.
ALSO_PROPERTIES = ("argsrepr", "kwargsrepr", "origin")
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Draft:
    """A message before it is written; receivers of `before_task_publish` may still change it."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None
    serializer: str
    compression: str | None
    delivery_mode: Any

    def text(self, routing_key: str, delivery_tag: str, exchange: str = "") -> str:
        """As it lies in a list. Without an exchange the routing key is the queue.

        Raises kombu's `EncodeError` for arguments of no use.
        """
        content_type, content_encoding, body = dumps(self.body, serializer=self.serializer)
        if self.compression:
            body, self.headers["compression"] = compress(body, self.compression)
        data = body.encode() if isinstance(body, str) else body
        message = {
            "body": b64encode(data).decode(),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": self.headers,
            "properties": self._properties(exchange, routing_key, delivery_tag),
        }
        return str(json.dumps(message))

    def _properties(self, exchange: str, routing_key: str, delivery_tag: str) -> dict[str, Any]:
        kept = dict(self.properties)
        priority, expiration = kept.pop("priority", None), kept.pop("expiration", None)
        kept["delivery_mode"] = maybe_delivery_mode(self.delivery_mode)
        if expiration is not None:
            kept["expiration"] = milliseconds(expiration)
        kept["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        kept["priority"] = priority or 0
        kept["body_encoding"] = "base64"
        kept["delivery_tag"] = delivery_tag
        return kept


def compose(
    app: Any,
    name: str,
    args: Any,
    kwargs: Any,
    task_id: str,
    options: Mapping[str, Any],
    *,
    expiration: Any = None,
    sent_event: bool = False,
    instead: Mapping[str, str] = NOTHING,
) -> Draft:
    """The message of one task; `options` are resolved, with times as ISO texts.

    `expiration` is the number of seconds for which the task is worth running, if that is known.
    `instead` are values that stand in the headers where the options have none.
    """
    given = {key: options[key] for key in (*TOLD, *ALSO_PROPERTIES) if key in options}
    told = {**given, **{key: text for key, text in instead.items() if given.get(key) is None}}
    reply_to = options.get("reply_to") or told.get("reply_to") or app.thread_oid
    told.pop("reply_to", None)
    stamps = {key: options[key] for key in ("stamped_headers",) if options.get(key)}
    stamps |= {key: options[key] for key in stamps.get("stamped_headers", ())}
    headers, properties, body, event = app.amqp.create_task_message(
        task_id,
        name,
        args,
        kwargs,
        callbacks=maybe_list(options.get("link")),
        errbacks=maybe_list(options.get("link_error")),
        reply_to=reply_to,
        create_sent_event=sent_event,
        **told,
        **stamps,
    )
    headers.update(options.get("headers") or {})
    properties.update({key: options[key] for key in ALSO_PROPERTIES if key in options})
    properties["priority"] = options.get("priority")
    if expiration is not None:
        properties["expiration"] = expiration
    conf = app.conf
    return Draft(
        headers=headers,
        properties=properties,
        body=body,
        sent_event=event,
        serializer=options.get("serializer") or conf.task_serializer,
        compression=options.get("compression") or conf.task_compression,
        delivery_mode=options.get("delivery_mode") or conf.task_default_delivery_mode,
    )


def milliseconds(expiration: Any) -> str:
    """The property `expiration` as kombu writes it, from seconds; a text stays as it is."""
    return expiration if isinstance(expiration, str) else str(int(expiration * 1000))


def level(priority: Any) -> int:
    """The priority by which kombu chooses the list; what is no number counts as 0."""
    try:
        return max(min(int(priority), MAX_PRIORITY), 0)
    except (TypeError, ValueError):
        return 0
