"""Messages as they come from anywhere: broken in every way that we could think of, or only odd.

`BROKEN` are those that Celery cannot run, with the reason that the gate gives; `ODD` those that it
can. Each is bytes, as they are in Redis, and has its own name as the id of its task.
"""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

NOT_KOMBU = "is not a message of kombu"
NO_PARTS = "its body is not arguments, keyword arguments and callbacks"
EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SIGNATURE: dict[str, Any] = {
    "task": "shop.add",
    "args": [1],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}
INFINITE = float("inf")


def body_of(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def message(
    name: str,
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    parts: Any = ([1, 2], {}, EMBED),
    **top: Any,
) -> dict[str, Any]:
    """A good message of `shop.add`, with what is given changed; `parts` are those of its body."""
    return {
        "body": body_of(parts),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": "shop.add",
            "id": name,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": name,
            "parent_id": None,
            "argsrepr": "(1, 2)",
            "kwargsrepr": "{}",
            "origin": "somebody",
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            **(headers or {}),
        },
        "properties": {
            "correlation_id": name,
            "reply_to": "somebody",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "of-the-producer",
            **(properties or {}),
        },
        **top,
    }


def raw(name: str, *args: Any, **changes: Any) -> bytes:
    return json.dumps(message(name, *args, **changes)).encode()


def without(name: str, part: str) -> bytes:
    whole = message(name)
    del whole[part]
    return json.dumps(whole).encode()


def of_protocol_1(name: str, **fields: Any) -> bytes:
    """What Celery 3 sent: all that is in the headers today stood in the body."""
    body = {"task": "shop.add", "id": name, "args": [1, 2], "kwargs": {}, **fields}
    whole = message(name, parts=body)
    whole["headers"] = {}
    return json.dumps(whole).encode()


def nested(name: str, levels: int, where: str) -> bytes:
    """A message with lists in lists: in the headers or in the body."""
    deep = "[" * levels + "]" * levels
    whole = message(name)
    if where == "body":
        text = '[[1, 2], {}, {"z": DEEP}]'.replace("DEEP", deep)
        whole["body"] = base64.b64encode(text.encode()).decode()
        return json.dumps(whole).encode()
    return json.dumps(whole).replace('"somebody"', deep, 1).encode()


def _embeds() -> dict[str, tuple[dict[str, Any], str]]:
    """Callbacks that are none: Celery would run the task and stumble afterwards."""
    cases: dict[str, tuple[dict[str, Any], str]] = {}
    for name in ("callbacks", "errbacks", "chain"):
        for number, value in enumerate(["text", [5], {"task": "x"}, [[]], [{"args": []}], 7]):
            parts = [[1, 2], {}, EMBED | {name: value}]
            reason = f"its {name} are no list of tasks"
            cases[f"{name} {number}"] = ({"body": body_of(parts)}, reason)
    for number, value in enumerate(["text", [5], {"args": []}]):
        parts = [[1, 2], {}, EMBED | {"chord": value}]
        cases[f"chord {number}"] = ({"body": body_of(parts)}, "its chord is no task")
    for name, value in {"_children": 5, "delivery_info": 5, "properties": {}, "id": "5"}.items():
        parts = [[1, 2], {}, EMBED | {name: value}]
        cases[f"{name} in the body"] = (
            {"body": body_of(parts)},
            "its callbacks are more than that",
        )
    return cases


def _bodies() -> dict[str, tuple[bytes, str]]:
    no_read = "its body cannot be read: "
    no_args = "its arguments are not a list and a mapping"
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "body is no base64": ({"body": "%%%"}, NO_PARTS),
        "body is cut": ({"body": body_of([[1, 2], {}, {}])[:9]}, NOT_KOMBU),
        "body is a number": ({"body": 7}, NOT_KOMBU),
        "body is a list": ({"body": [[], {}, {}]}, NOT_KOMBU),
        "body is empty": ({"body": ""}, NO_PARTS),
        "body of nothing": ({"body": body_of(None)}, NO_PARTS),
        "body of a number": ({"body": body_of(5)}, NO_PARTS),
        "body of a text": ({"body": body_of("args")}, NO_PARTS),
        "body of a pair": ({"body": body_of([[], {}])}, NO_PARTS),
        "body of four": ({"body": body_of([[], {}, {}, {}])}, NO_PARTS),
        "body of a mapping": ({"body": body_of({"x": 1})}, NO_PARTS),
        "arguments are a text": ({"body": body_of(["args", {}, EMBED])}, no_args),
        "arguments are none": ({"body": body_of([None, {}, EMBED])}, no_args),
        "keywords are a list": ({"body": body_of([[], [1], EMBED])}, no_args),
        "keywords are none": ({"body": body_of([[], None, EMBED])}, no_args),
        "older body in a newer one": ({"body": body_of({"args": 5, "kwargs": {}})}, no_args),
        "callbacks are a text": (
            {"body": body_of([[], {}, "args"])},
            "its embedded callbacks are no mapping",
        ),
        **_embeds(),
        "content type unknown": ({"content-type": "a/b"}, no_read + "ContentDisallowed"),
        "content type missing": ({"content-type": None}, NO_PARTS),
        "content type is a list": ({"content-type": ["a"]}, no_read + "TypeError"),
        "pickle": (
            {
                "content-type": "application/x-python-serialize",
                "content-encoding": "binary",
                "body": base64.b64encode(pickle.dumps(([1, 2], {}, {}))).decode(),
            },
            no_read + "ContentDisallowed",
        ),
        "yaml": (
            {"content-type": "application/x-yaml", "body": base64.b64encode(b"- [1]").decode()},
            no_read + "ContentDisallowed",
        ),
        "msgpack": (
            {"content-type": "application/x-msgpack", "content-encoding": "binary"},
            no_read + "ContentDisallowed",
        ),
        "encoding is a number": ({"content-encoding": 8}, no_read + "AttributeError"),
    }
    return {name: (raw(name, **top), reason) for name, (top, reason) in cases.items()}


def _headers() -> dict[str, tuple[bytes, str]]:
    stamps = "the names of its stamps are not texts"
    limits = "its timelimit is not two numbers"
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "id none": ({"id": None}, "its id is not a text"),
        "id a number": ({"id": 5}, "its id is not a text"),
        "id a list": ({"id": ["x"]}, "its id is not a text"),
        "id empty": ({"id": ""}, "its id is not a text"),
        "id half a character": ({"id": "\ud800"}, "its id is not a text"),
        "task none": ({"task": None}, "its task is not a text"),
        "task a mapping": ({"task": {"name": "shop.add"}}, "its task is not a text"),
        "task a list": ({"task": ["shop.add"]}, "its task is not a text"),
        "shadow a list": ({"shadow": [1]}, "its shadow is not a text"),
        "shadow a mapping": ({"shadow": {"a": 1}}, "its shadow is not a text"),
        "unique half": ({"nxs_unique": "\udfff"}, "its nxs_unique is not a text"),
        "unique a mapping": ({"nxs_unique": {"a": 1}}, "its nxs_unique is not a text"),
        "eta nonsense": ({"eta": "tomorrow"}, "its eta is not a time"),
        "eta a number": ({"eta": 12}, "its eta is not a time"),
        "eta a list": ({"eta": ["2026-01-01"]}, "its eta is not a time"),
        "expires nonsense": ({"expires": "never"}, "its expires is not a time"),
        "expires a mapping": ({"expires": {}}, "its expires is not a time"),
        "limit a text": ({"timelimit": "soon"}, limits),
        "limit of one": ({"timelimit": [1]}, limits),
        "limits texts": ({"timelimit": ["1", "2"]}, limits),
        "limits lists": ({"timelimit": [[], []]}, limits),
        "limits endless": ({"timelimit": [INFINITE, None]}, limits),
        "limits no number": ({"timelimit": [None, float("nan")]}, limits),
        "limits below zero": ({"timelimit": [-1, None]}, limits),
        "retries a text": ({"retries": "3"}, "its retries are not a number"),
        "retries a half": ({"retries": 1.5}, "its retries are not a number"),
        "children of its own": ({"_children": [1]}, "it says what its _children are"),
        "stamps a list": ({"stamps": [1]}, "its stamps are of the wrong kind"),
        "stamped a text": ({"stamped_headers": "a"}, "its stamped_headers are of the wrong kind"),
        "stamped a list in a list": ({"stamped_headers": [["a"]]}, stamps),
        "stamped a mapping": ({"stamped_headers": [{}], "stamps": {"a": 1}}, stamps),
        "stamped a number": ({"stamped_headers": [1], "stamps": {"1": 1}}, stamps),
        "compression unknown": (
            {"compression": "application/x-nonsense"},
            "its body cannot be unpacked: KeyError",
        ),
        "compression a lie": (
            {"compression": "application/x-gzip"},
            "its body cannot be unpacked: error",
        ),
        "compression a list": ({"compression": ["zlib"]}, "its body cannot be unpacked: TypeError"),
    }
    return {name: (raw(name, headers), reason) for name, (headers, reason) in cases.items()}


def _shapes() -> dict[str, tuple[bytes, str]]:
    good = json.dumps(message("cut")).encode()
    found: dict[str, tuple[bytes, str]] = {
        f"raw {number}": (data, NOT_KOMBU)
        for number, data in enumerate(
            [
                b"",
                b" ",
                b"null",
                b"7",
                b"true",
                b'"text"',
                b"[]",
                b"{}",
                b"[1, 2, 3]",
                b"\x00",
                b"\x00\x01\xfe\xff",
                b"\xff\xfe" + good,
                b"not JSON at all",
                good[: len(good) // 2],
                good[:-1],
                good + b"}",
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b'{"headers": {"id": ' + b"9" * 5000 + b"}}",
                pickle.dumps(message("pickled")),
                zlib.compress(good),
            ]
        )
    }
    found |= {
        f"no {part}": (without(f"no {part}", part), NOT_KOMBU) for part in ("headers", "properties")
    }
    for part in ("headers", "properties"):
        for number, value in enumerate([None, 5, "text", [], [1], True]):
            name = f"{part} {number}"
            found[name] = (json.dumps(message(name) | {part: value}).encode(), NOT_KOMBU)
    for part in ("body", "content-type"):
        found[f"no {part}"] = (without(f"no {part}", part), NO_PARTS)
    found["older, no task"] = (of_protocol_1("older, no task", task=None), "its task is not a text")
    found["older, odd eta"] = (of_protocol_1("older, odd eta", eta="soon"), "its eta is not a time")
    found["older, odd keywords"] = (
        of_protocol_1("older, odd keywords", kwargs=[1]),
        "its arguments are not a list and a mapping",
    )
    name = "odd delivery info"
    info = raw(name, properties={"delivery_info": 5})
    found[name] = (info, "its delivery_info is no mapping")
    whole = message("no task anywhere")
    whole["headers"] = {}
    found["no task anywhere"] = (json.dumps(whole).encode(), "it names no task")
    invalid = raw("invalid UTF-8").replace(b"invalid UTF-8", b"invalid \xff\xfe")
    found["invalid UTF-8"] = (invalid, "its id is not a text")
    for where in ("headers", "body"):
        for levels in (300, 480, 700, 850):
            name = f"{levels} levels in {where}"
            found[name] = (nested(name, levels, where), "it is nested more than 300 levels deep")
    return found


def _odd() -> dict[str, bytes]:
    headers: dict[str, dict[str, Any]] = {
        "huge": {"origin": "x" * 5_000_000},
        "languages": {"lang": ["py"], "origin": {"a": 1}},
        "no root": {"root_id": None, "parent_id": None},
        "shadowed": {"shadow": "another name"},
        "short of time": {"timelimit": [60, 30.5]},
        "no limits": {"timelimit": None},
        "stamped": {"stamped_headers": ["who"], "stamps": {"who": ["me", "you"]}},
        "stamped without a stamp": {"stamped_headers": ["who"], "stamps": {}},
        "old losses": {"nxs_lost": "nonsense", "nxs": 5},
        "late": {"eta": "2001-01-01T00:00:00+00:00"},
        "unknown headers": {"x-trace": {"a": [1, {"b": None}]}, "": 1},
        "NUL \x00 in it": {},
        "umlaut äöü €": {},
    }
    odd = {name: raw(name, changed) for name, changed in headers.items()}
    odd |= {
        "older protocol": of_protocol_1("older protocol"),
        "older with an eta": of_protocol_1(
            "older with an eta", eta="2001-01-01T00:00:00", utc=True
        ),
        "no callbacks": raw("no callbacks", parts=[[1, 2], {}, None]),
        "with a callback": raw(
            "with a callback", parts=[[1, 2], {}, {**EMBED, "callbacks": [SIGNATURE]}]
        ),
        "hybrid": raw("hybrid", parts={"args": [1, 2], "kwargs": {}}),
        "odd delivery": raw("odd delivery", properties={"delivery_info": None, "priority": "5"}),
        "odd priority": raw("odd priority", properties={"priority": [1]}),
        "plain body": raw(
            "plain body", properties={"body_encoding": None}, **{"body": "[[1, 2], {}, null]"}
        ),
        "200 levels": nested("200 levels", 200, "headers"),
        "200 levels of the body": nested("200 levels of the body", 200, "body"),
        "unknown encoding": raw("unknown encoding", **{"content-encoding": "nonsense"}),
    }
    return odd


BROKEN: dict[str, tuple[bytes, str]] = {**_shapes(), **_headers(), **_bodies()}
ODD: dict[str, bytes] = _odd()
