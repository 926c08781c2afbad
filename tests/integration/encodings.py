"""Tasks, options and configurations for which a submission is compared with Celery's own."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from celery import Signature
from kombu import Exchange, Queue

#: Time stands still at it.
NOW = datetime(2031, 5, 17, 12, 30, 15, 250_000, tzinfo=UTC)
THERE = timezone(timedelta(hours=5, minutes=30))
UUID = uuid.UUID("6f1c0d0e-0b0c-4c7e-8a52-3d6d1a2b3c4d")

ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "none": ((), None),
    "no values at all": (None, None),
    "plain": ((1, "express"), None),
    "a list": ([1, 2.5, True, None], None),
    "keywords": ((), {"order": 4711, "how": "express"}),
    "both": ((1,), {"a": [1, 2], "b": {"c": None}}),
    "unicode": (("zażółć", "日本", "🦀", "\u2028"), {"naïve": "é"}),
    "quotes": (("it's", 'say "no"', "back\\slash", "new\nline", "tab\t", "\x00"), None),
    "an apostrophe": (("it's",), {"it's": "it's"}),
    "quotation marks": (('say "no"',), {'"': '"'}),
    "percent signs": (("100 %", "%s", "%(x)s"), {"%d": "%%"}),
    "a lone surrogate": (("\ud800",), None),
    "numbers": ((0, -1, 2**70, 0.1, 1e300, -0.0), None),
    "not quite numbers": ((float("nan"), float("inf")), None),
    "nested": (([[[[1], 2], 3], {"a": {"b": {"c": {"d": 1}}}}],), None),
    "long": (("x" * 5000, list(range(1000))), {"k": "y" * 3000}),
    "just as long as is shown": (("x" * 1018,), None),
    "too long by one": (("x" * 1019,), None),
    "types of kombu's JSON": (
        (NOW, date(2031, 5, 17), time(12, 30), UUID, Decimal("1.50"), b"bytes", b"\xff\xfe"),
        {"when": NOW.astimezone(THERE)},
    ),
    "sets are no JSON of kombu but tuples are": (((1, (2, 3)),), None),
}

MAIL = Signature("shop.mail", args=(1,), kwargs={"to": "é"}, options={"priority": 3})
OPTIONS: dict[str, dict[str, Any]] = {
    "countdown": {"countdown": 5},
    "countdown of a part of a second": {"countdown": 0.75},
    "a countdown of nothing": {"countdown": 0},
    "a countdown into the past": {"countdown": -3},
    "eta": {"eta": NOW + timedelta(hours=1)},
    "eta elsewhere": {"eta": (NOW + timedelta(hours=1)).astimezone(THERE)},
    "eta without a zone": {"eta": datetime(2031, 6, 1, 8, 0)},
    "eta as a text": {"eta": "2031-06-01T08:00:00+02:00"},
    "countdown and eta": {"countdown": 7, "eta": NOW + timedelta(hours=1)},
    "expires in seconds": {"expires": 60},
    "expires in a part of a second": {"expires": 0.5},
    "expires at once": {"expires": 0},
    "expires at a time": {"expires": NOW + timedelta(minutes=2, microseconds=1500)},
    "expires elsewhere": {"expires": (NOW + timedelta(minutes=2)).astimezone(THERE)},
    "expires as a text": {"expires": "2031-05-17T12:32:15.250000+00:00"},
    "expired": {"expires": NOW - timedelta(minutes=2)},
    "countdown and expires": {"countdown": 5, "expires": 60},
    "priority": {"priority": 3},
    "a priority between the steps": {"priority": 5},
    "a priority too high": {"priority": 17},
    "a priority too low": {"priority": -2},
    "a priority as a text": {"priority": "6"},
    "a priority that is none": {"priority": "high"},
    "no priority": {"priority": None},
    "shadow": {"shadow": "shop.add of today"},
    "time limits": {"time_limit": 10, "soft_time_limit": 5.5},
    "ignore_result": {"ignore_result": True},
    "do not ignore_result": {"ignore_result": False},
    "shadow with percent signs": {"shadow": "100 % of %s and %(x)s"},
    "retries": {"retries": 1},
    "retries that are equal and not the same": {"retries": True},
    "retries that are equal too": {"retries": 1.0},
    "headers": {"headers": {"tenant": "é", "n": 1, "at": NOW}},
    "headers that override": {"headers": {"lang": "rs", "shadow": "other"}},
    "no headers": {"headers": {}},
    "group": {"group_id": "g" * 36, "group_index": 3},
    "lineage": {"root_id": "r" * 36, "parent_id": "p" * 36},
    "root alone": {"root_id": "r" * 36},
    "reply_to": {"reply_to": "somewhere"},
    "delivery_mode": {"delivery_mode": 1},
    "delivery_mode by name": {"delivery_mode": "transient"},
    "compression": {"compression": "zlib"},
    "yaml": {"serializer": "yaml"},
    "pickle": {"serializer": "pickle"},
    "pickle and bzip2": {"serializer": "pickle", "compression": "bzip2"},
    "origin": {"origin": "me@here"},
    "argsrepr": {"argsrepr": "(***)", "kwargsrepr": "{***}"},
    "argsrepr of nothing": {"argsrepr": None},
    "nesting": {"replaced_task_nesting": 2},
    "stamps": {"stamped_headers": ["tenant"], "tenant": ["a"]},
    "link": {"link": MAIL},
    "links and error handlers": {"link": [MAIL, MAIL], "link_error": MAIL},
    "chain": {"chain": [MAIL]},
    "chord": {"chord": MAIL, "group_id": "g" * 36},
    "queue": {"queue": "mine"},
    "queue and priority": {"queue": "mine", "priority": 9},
    "many": {
        "countdown": 5,
        "expires": 90,
        "priority": 6,
        "shadow": "s",
        "time_limit": 9,
        "ignore_result": True,
        "group_id": "g",
        "headers": {"a": 1},
    },
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "a serializer": {"task_serializer": "yaml"},
    "compression": {"task_compression": "zlib"},
    "a zone": {"timezone": "Asia/Kathmandu", "enable_utc": False},
    "a zone and UTC": {"timezone": "America/St_Johns"},
    "a priority": {"task_default_priority": 9},
    "no results": {"task_ignore_result": True},
    "time limits": {"task_time_limit": 60, "task_soft_time_limit": 50},
    "deeper representations": {"task_repr_maxlevels": 6},
    "endless representations": {"task_repr_maxlevels": None},
    "transient messages": {"task_default_delivery_mode": "transient"},
    "another queue": {"task_default_queue": "shop"},
    "other keys": {
        "broker_transport_options": {
            "global_keyprefix": "s:",
            "sep": "@",
            "priority_steps": [0, 2, 4, 6, 8],
        }
    },
    "a table of routes": {"task_routes": {"shop.*": {"queue": "routed"}}},
    "a route with options": {
        "task_routes": {
            "shop.*": {"queue": "routed", "priority": 3, "delivery_mode": 1, "compression": "zlib"}
        }
    },
    "a route without a queue": {"task_routes": {"shop.add": {"priority": 6}}},
    "a router": {"task_routes": [lambda name, *_, **__: f"of {name}"]},
    "a router that sees arguments": {
        "task_routes": [
            lambda name, args, kwargs, options, task=None: f"{args} {kwargs} {task is None}"
        ]
    },
    "a router that leaves it open": {"task_routes": [lambda *_, **__: None]},
    "queues": {
        "task_queues": [
            Queue("celery", Exchange("one", delivery_mode=2)),
            Queue("mine", Exchange("two", delivery_mode=1), routing_key="x"),
        ]
    },
}
#: What only Celery can send, because it needs kombu's exchanges or changes them.
LONG_WAYS: dict[str, dict[str, Any]] = {
    "the first protocol": {"task_protocol": 1},
    "a topic exchange": {
        "task_queues": [Queue("celery", Exchange("all", type="topic"), routing_key="#")],
        "task_default_exchange_type": "topic",
    },
    "a default queue with a delivery mode": {
        "task_queues": [Queue("celery", Exchange("one", delivery_mode=1))]
    },
    "a queue that expires": {"task_queues": [Queue("celery", expires=60)]},
    "a route by exchange": {
        "task_queues": [Queue("celery"), Queue("mine", Exchange("ours"), routing_key="pay")],
        "task_routes": {"shop.*": {"queue": "mine", "exchange": "ours", "routing_key": "pay"}},
    },
    "a router that changes options": {
        "task_routes": [lambda n, a, k, options, task=None: options.update(priority=3)]
    },
}
