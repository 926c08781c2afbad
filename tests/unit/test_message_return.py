"""A message on its way back: out of the hash of its holder, marked, counted, in its own place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel
from kombu.utils.json import dumps

from nxs_tasks.errors import MessageError
from nxs_tasks.store.message import (
    LOST_HEADER,
    UNIQUE_HEADER,
    Envelope,
    read,
    returned,
    unwrap,
    without_losses,
)
from tests.unit.builders import case, examples

LOSS = {"instance": "w1@host", "epoch": 3, "at": 1700000000.25}
EARLIER = {"instance": "w2@host", "epoch": 1, "at": 1600000000.5}
#: Texts that look like what the claim script writes around a message.
MARKS = st.sampled_from((', "", ', '", "", "', "[", "]", '"', "\\", ", ", "\ufffd", "\udcff"))
texts = st.lists(MARKS | st.text(max_size=6), max_size=6).map("".join)


def a_message(headers: Any = None, **properties: Any) -> str:
    return json.dumps(
        {
            "body": "W1tdLCB7fSwge31d",
            "headers": {"id": "an-id", "task": "shop.mail", **(headers or {})},
            "properties": {"delivery_info": {"exchange": "x", "routing_key": "old"}, **properties},
        }
    )


def claimed(raw: str, queue: str) -> str:
    """As `claim.lua` writes it."""
    return f'[{raw}, "", {json.dumps(queue, ensure_ascii=False)}]'


# --- given back --------------------------------------------------------------------------------


def test_a_message_that_is_given_back_is_marked_as_kombu_marks_it() -> None:
    pushed: list[str] = []

    class Pipe:
        def rpush(self, key: str, text: str) -> None:
            pushed.append(text)

    channel = Channel.__new__(Channel)
    channel._lookup = lambda exchange, routing_key: ["old"]
    channel._do_restore_message(json.loads(a_message()), "x", "old", Pipe())
    kombu_s = json.loads(pushed[0])
    ours = json.loads(returned(a_message(), "old"))
    assert ours["properties"]["delivery_info"].pop("exchange") == ""
    assert kombu_s["properties"]["delivery_info"].pop("exchange") == "x"
    assert ours == kombu_s


def test_a_message_that_is_given_back_has_its_new_address_and_nothing_else_is_changed() -> None:
    raw = a_message({"nxs": {"to": "w1"}, UNIQUE_HEADER: "order 7"}, priority=6, extra=[1])
    after, before = json.loads(returned(raw, "celery")), json.loads(raw)
    info = {"exchange": "", "routing_key": "celery", "redelivered": True}
    assert after["properties"].pop("delivery_info") == info
    assert after["headers"].pop("redelivered") is True
    before["properties"].pop("delivery_info")
    assert after == before


def test_it_says_that_it_was_delivered_before() -> None:
    assert not read(a_message()).redelivered
    assert read(returned(a_message(), "celery")).redelivered


@pytest.mark.parametrize("info", [None, "x", [], 5])
def test_a_message_without_a_proper_address_gets_one(info: Any) -> None:
    after = json.loads(returned(a_message(delivery_info=info), "celery"))
    assert after["properties"]["delivery_info"]["routing_key"] == "celery"


# --- losses ------------------------------------------------------------------------------------


def test_without_a_loss_none_is_counted() -> None:
    assert LOST_HEADER not in json.loads(returned(a_message(), "celery"))["headers"]
    once = a_message({LOST_HEADER: [EARLIER]})
    assert read(returned(once, "celery")).lost == (EARLIER,)


def test_each_loss_is_added_behind_the_others() -> None:
    raw = returned(a_message(), "celery", EARLIER)
    assert read(raw).lost == (EARLIER,)
    assert read(returned(raw, "celery", LOSS)).lost == (EARLIER, LOSS)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        case("nothing", None, ()),
        case("a number", 5, ()),
        case("a text", "w1", ()),
        case("one loss that is in no list", EARLIER, ()),
        case("a list with others between", [None, EARLIER, "w1", 7, []], (EARLIER,)),
    ],
)
def test_losses_that_nxs_did_not_write_do_not_count(written: Any, known: tuple[Any, ...]) -> None:
    raw = a_message({LOST_HEADER: written})
    assert read(raw).lost == known
    assert read(returned(raw, "celery", LOSS)).lost == (*known, LOSS)


def test_without_its_losses_a_message_begins_anew() -> None:
    raw = a_message({LOST_HEADER: [EARLIER, LOSS]})
    assert json.loads(without_losses(raw)) == json.loads(a_message())
    assert json.loads(without_losses(a_message())) == json.loads(a_message())


# --- what a message says -----------------------------------------------------------------------


def test_a_unique_key_and_a_group_and_an_eta_are_read() -> None:
    headers = {
        UNIQUE_HEADER: "order 7",
        "group": "a-group",
        "eta": "2031-05-06T07:00:00+00:00",
        "ignore_result": True,
    }
    assert read(a_message(headers, priority=3)) == Envelope(
        task_id="an-id",
        task="shop.mail",
        placed=None,
        redelivered=False,
        group="a-group",
        unique_key="order 7",
        eta="2031-05-06T07:00:00+00:00",
        ignores_result=True,
        priority=3,
    )


def test_what_is_not_said_is_empty() -> None:
    nothing = dict.fromkeys((UNIQUE_HEADER, "group", "eta", "ignore_result", LOST_HEADER))
    assert (
        read(a_message(nothing)) == read(a_message()) == Envelope("an-id", "shop.mail", None, False)
    )


@examples(200)
@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(("5", "-1", " 7 ", "9.5", "٣", "1" * 5000))
    | st.lists(st.integers(), max_size=2)
)
def test_the_priority_is_the_one_that_kombu_reads(priority: Any) -> None:
    raw = a_message(priority=priority)
    channel = Channel.__new__(Channel)
    assert read(raw).priority == channel._get_message_priority(json.loads(raw))


def test_an_endless_priority_is_none() -> None:
    assert read(a_message(priority=float("inf"))).priority == 0


# --- out of the hash ---------------------------------------------------------------------------


@examples(300)
@given(texts, texts)
def test_what_was_claimed_comes_out_as_it_was(raw: str, queue: str) -> None:
    assert unwrap(claimed(raw, queue)) == (raw, queue)


@examples(300)
@given(
    st.dictionaries(texts, texts | st.lists(texts, max_size=4), max_size=3),
    st.sampled_from(("", "celery", "an, exchange")) | texts,
    texts,
)
def test_what_kombu_has_wrapped_comes_out_too(
    headers: dict[str, Any], exchange: str, routing_key: str
) -> None:
    message = {"headers": headers, "properties": {}}
    found, queue = unwrap(dumps([message, exchange, routing_key]))
    assert (json.loads(found), queue) == (message, routing_key)


def test_a_message_of_kombu_with_our_mark_in_it() -> None:
    message = {"headers": {"stamps": ["a", "", "b"]}, "properties": {}}
    entry = dumps([message, "an-exchange", "mail"])
    found, queue = unwrap(entry)
    assert (json.loads(found), queue) == (message, "mail")


@pytest.mark.parametrize(
    "entry",
    [
        case("nothing", ""),
        case("a text", "hello"),
        case("half an entry", claimed(a_message(), "celery")[:-3]),
        case("a pair", "[5, 6]"),
        case("an object", '{"a": 1}'),
        case("a number", "7"),
        case("nested too deep", "[" * 100_000),
        case("our mark, and then nested too deep", '[, "", ' + "[" * 100_000 + "]"),
    ],
)
def test_what_nobody_has_wrapped_is_refused(entry: str) -> None:
    with pytest.raises(MessageError, match="not a message of kombu"):
        unwrap(entry)


@pytest.mark.parametrize("change", [lambda raw: returned(raw, "celery", LOSS), without_losses])
@pytest.mark.parametrize("raw", ["", "hello", "null", "[]", '{"headers": {}}', "[" * 100_000])
def test_what_is_no_message_is_not_changed_but_refused(
    change: Callable[[str], str], raw: str
) -> None:
    with pytest.raises(MessageError, match="not a message of kombu"):
        change(raw)


def test_what_was_moved_is_no_longer_what_somebody_has_placed() -> None:
    raw = a_message({"nxs": {"to": "w1", "at": 1.0}})
    assert read(returned(raw, "own")).placed == {"to": "w1", "at": 1.0}
    assert read(returned(raw, "own", pinned=True)).placed is None
