"""What a selection of tasks means, and what is told of a message that may be part of a chord."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.errors import MessageError
from nxs_tasks.model.intent import Selection
from nxs_tasks.store.message import in_chord

PLAIN = "W1tdLCB7fSwge31d"  # [[], {}, {}]


def a_message(body: str = PLAIN, **headers: Any) -> str:
    return json.dumps(
        {
            "body": body,
            "headers": {"task": "shop.mail", "id": "t1", **headers},
            "properties": {"body_encoding": "base64"},
        }
    )


IN_A_CHORD = (
    "W1tdLCB7fSwgeyJjaG9yZCI6IHsidGFzayI6ICJ4In19XQ=="  # [[], {}, {"chord": {"task": "x"}}]
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"body": IN_A_CHORD}, False),
        ({"group": "g"}, False),
        ({"group": "g", "body": IN_A_CHORD}, True),
        ({"group": "g", "body": "gAQ="}, True),
        ({"group": "g", "body": "?"}, True),
    ],
    ids=["plain", "no group", "in a group", "in a chord", "in a pickle", "broken"],
)
def test_whether_a_chord_waits_for_it(headers: dict[str, Any], expected: bool) -> None:
    assert in_chord(a_message(**headers)) is expected


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Selection(ids=frozenset({"t1"})), True),
        (Selection(tasks=frozenset({"shop.mail"})), True),
        (Selection(groups=frozenset({"g1"})), True),
        (Selection(ids=frozenset({"t2"}), tasks=frozenset({"shop.pay"})), False),
        (Selection(), False),
    ],
)
def test_what_a_selection_means(wanted: Selection, meant: bool) -> None:
    assert wanted.matches("t1", "shop.mail", "g1") is meant


def test_a_body_that_is_not_encoded() -> None:
    message = json.loads(a_message(group="g"))
    del message["properties"]["body_encoding"]
    assert in_chord(json.dumps({**message, "body": '[[], {}, {"chord": {"task": "x"}}]'})) is True
    assert in_chord(json.dumps({**message, "body": "[[], {}, {}]"})) is False


def test_of_what_is_no_message_nothing_is_told() -> None:
    with pytest.raises(MessageError):
        in_chord("no JSON")
