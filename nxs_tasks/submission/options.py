"""The options of a submission: those of Celery's `apply_async`, and who can carry them out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from nxs_tasks.errors import OptionError
from nxs_tasks.store.message import UNIQUE_HEADER

#: What becomes a part of the message, or says where it goes.
MESSAGE = frozenset(
    {
        "add_to_parent",
        "argsrepr",
        "chain",
        "chord",
        "compression",
        "countdown",
        "delivery_mode",
        "eta",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "origin",
        "parent_id",
        "priority",
        "queue",
        "replaced_task_nesting",
        "reply_to",
        "retries",
        "root_id",
        "serializer",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "task_id",
        "time_limit",
    }
)
#: What speaks of Celery's own way to the broker, so that only Celery can carry it out.
CELERY = frozenset(
    {
        "app_id",
        "cluster_id",
        "confirm_timeout",
        "connection",
        "content_encoding",
        "content_type",
        "correlation_id",
        "declare",
        "event_dispatcher",
        "exchange",
        "exchange_type",
        "expiration",
        "immediate",
        "mandatory",
        "message_id",
        "now",
        "producer",
        "publisher",
        "result_cls",
        "retry",
        "retry_policy",
        "route_name",
        "router",
        "routing_key",
        "task_type",
        "timeout",
        "timestamp",
        "timezone",
        "type",
        "user_id",
    }
)
#: Ours: of one key there is one task at a time.
UNIQUE = "unique_key"
KNOWN = MESSAGE | CELERY | {UNIQUE}


def with_unique_header(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same options with the unique key where it stands in the message. Raises `OptionError`."""
    if UNIQUE not in options:
        return options
    given = dict(options)
    key = given.pop(UNIQUE)
    if not isinstance(key, str) or not key:
        raise OptionError(f"unique_key={key!r}: expected a text")
    return {**given, "headers": {**(given.get("headers") or {}), UNIQUE_HEADER: key}}


def unique_key(options: Mapping[str, Any]) -> str:
    """The key to take; "" if there is none. A retry has its key already."""
    headers = options.get("headers") or {}
    return "" if options.get("retries") else str(headers.get(UNIQUE_HEADER) or "")


def refuse_early(task: Any) -> None:
    """Raises `OptionError` for a task (or None) that may not have a unique key."""
    if task is not None and not task.acks_late:
        raise OptionError(
            f"unique_key: {task.name} has acks_late=False, so nobody knows when it ends, and its "
            "key would be free as soon as it starts: give it acks_late=True"
        )


def check_known(options: Mapping[str, Any]) -> None:
    """Raises `OptionError` for a name that neither Celery nor NXS knows.

    Celery itself takes any name, and writes it into the message as a property that nobody reads.
    """
    unknown = options.keys() - KNOWN
    if unknown:
        unknown -= set(options.get("stamped_headers") or ())
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see apply_async() of Celery for them"
        raise OptionError(f"submit() has no option {name!r}: {hint}")


def for_celery(options: Mapping[str, Any]) -> str:
    """The name of an option that only Celery can carry out, or ""."""
    return next((name for name in options if name in CELERY and options[name] is not None), "")
