"""The message format of kombu's Redis transport: read and readdressed, never guessed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.json import dumps

from nxs_tasks.errors import MessageError
from nxs_tasks.store.message import (
    MOVED_HEADER,
    PLACED_HEADER,
    Envelope,
    migrated,
    read,
    read_held,
    reroute,
)
from tests.unit.builders import TASK, case, examples

#: As a Redis list holds it: written by Celery 5 for `mail.delay("ann", copies=2)`.
ON_THE_WIRE = json.dumps(
    {
        "body": "W1siYW5uIl0sIHsiY29waWVzIjogMn0sIHsiY2FsbGJhY2tzIjogbnVsbH1d",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": "shop.mail",
            "id": "8f0f4a1c-8e7d-4a53-9a7e-0e2b7f6d8c11",
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": "8f0f4a1c-8e7d-4a53-9a7e-0e2b7f6d8c11",
            "parent_id": None,
            "argsrepr": "('ann',)",
            "kwargsrepr": "{'copies': 2}",
            "origin": "gen4711@shop",
            "ignore_result": False,
        },
        "properties": {
            "correlation_id": "8f0f4a1c-8e7d-4a53-9a7e-0e2b7f6d8c11",
            "reply_to": "6d0a3f8e-2b7c-3c53-b8f5-5f2d3e1c9a77",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "nxs.w1@shop"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "0b7a5e52-6f0f-4a4e-8f0d-5b8b7a1d2c33",
        },
    }
)


@pytest.fixture(scope="module")
def publish() -> Iterator[Callable[..., str]]:
    """Publishes by Celery itself, and returns what kombu's Redis transport would push."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    with Connection("memory://") as connection, app.amqp.Producer(connection) as producer:

        def publish(task: str = TASK, *args: Any, **options: Any) -> str:
            queue = f"unit-{uuid.uuid4()}"
            app.send_task(task, args, producer=producer, queue=queue, **options)
            return str(dumps(producer.channel._get(queue)))

        yield publish


def reroute_to_celery(raw: str) -> str:
    return reroute(raw, "celery")


def held(raw: str) -> str:
    """As kombu writes it into the in-flight hash."""
    return json.dumps([json.loads(raw), "", "celery"])


# --- reading -----------------------------------------------------------------------------------


def test_a_message_of_celery_is_read() -> None:
    assert read(ON_THE_WIRE) == Envelope(
        task_id="8f0f4a1c-8e7d-4a53-9a7e-0e2b7f6d8c11",
        task="shop.mail",
        placed=None,
        redelivered=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        case("plain", {}),
        case("with keyword arguments", {"kwargs": {"copies": 2}}),
        case("for later", {"countdown": 60}),
        case("that expires", {"expires": 60}),
        case("with a priority", {"priority": 6}),
        case("without a result", {"ignore_result": True}),
        case("with a header of its own", {"headers": {"tenant": "ann"}}),
        case("pickled", {"serializer": "pickle"}),
        case("compressed", {"compression": "gzip"}),
        case("with an error callback", {"link_error": None}),
    ],
)
def test_a_message_that_celery_publishes_is_read(
    publish: Callable[..., str], options: dict[str, Any]
) -> None:
    raw = publish(TASK, "ann", task_id="an-id", **options)
    found = read(raw)
    assert found == read_held(held(raw))
    assert found == Envelope(
        "an-id",
        TASK,
        placed=None,
        redelivered=False,
        eta=found.eta,
        ignores_result=bool(options.get("ignore_result")),
        priority=options.get("priority", 0),
    )
    assert bool(found.eta) == ("countdown" in options)


def test_the_time_for_which_a_task_waits_is_as_celery_wrote_it(publish: Callable[..., str]) -> None:
    assert read(publish(eta=datetime(2031, 5, 6, 7, tzinfo=UTC))).eta == "2031-05-06T07:00:00+00:00"


def test_the_placement_in_the_headers_is_read(publish: Callable[..., str]) -> None:
    placed = {"to": "w1@shop", "score": 0.8123, "why": "highest score", "at": 1.5}
    raw = publish(headers={PLACED_HEADER: placed})
    assert read(raw).placed == placed


def changed(raw: str = ON_THE_WIRE, *path: str, to: Any) -> str:
    message = json.loads(raw)
    inner = message
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return json.dumps(message)


@pytest.mark.parametrize("placed", ["w1", 5, None, [], True])
def test_a_placement_that_nxs_did_not_write_is_none(placed: Any) -> None:
    assert read(changed(ON_THE_WIRE, "headers", PLACED_HEADER, to=placed)).placed is None


def test_a_redelivered_message_says_so() -> None:
    assert read(changed(ON_THE_WIRE, "headers", "redelivered", to=True)).redelivered


def test_a_message_without_an_id_in_the_headers_has_that_of_its_correlation() -> None:
    assert read(changed(ON_THE_WIRE, "headers", to={})).task_id.startswith("8f0f4a1c")
    assert read(changed(ON_THE_WIRE, "headers", to={})).task == ""


def test_a_message_that_says_nothing_of_itself_is_still_a_message() -> None:
    assert read('{"headers": {}, "properties": {}}') == Envelope("", "", None, False)


def test_an_entry_of_the_in_flight_hash_is_read() -> None:
    assert read_held(held(ON_THE_WIRE)) == read(ON_THE_WIRE)


# --- what is no message ------------------------------------------------------------------------

NO_MESSAGE = [
    case("nothing", ""),
    case("plain text", "hello"),
    case("half a message", ON_THE_WIRE[: len(ON_THE_WIRE) // 2]),
    case("a number", "5"),
    case("null", "null"),
    case("a list", "[]"),
    case("a text", '"headers"'),
    case("an object without headers", '{"properties": {}}'),
    case("an object without properties", '{"headers": {}}'),
    case("headers that are null", '{"headers": null, "properties": {}}'),
    case("headers that are a list", '{"headers": [], "properties": {}}'),
    case("properties that are a text", '{"headers": {}, "properties": "x"}'),
    case("an integer that is too long", "9" * 5000),
    case("half a character", "\udc80{}"),
]


@pytest.mark.parametrize("raw", NO_MESSAGE)
@pytest.mark.parametrize("reader", [read, reroute_to_celery])
def test_what_is_no_message_is_refused(raw: str, reader: Callable[[str], Any]) -> None:
    with pytest.raises(MessageError, match="not a message of kombu"):
        reader(raw)


@pytest.mark.parametrize(
    "raw",
    [
        *NO_MESSAGE,
        case("a message that nobody holds", ON_THE_WIRE),
        case("a pair", f'[{ON_THE_WIRE}, ""]'),
        case("four parts", f'[{ON_THE_WIRE}, "", "", ""]'),
        case("three parts, the first no message", '[5, "", ""]'),
        case("an object of three", '{"a": 1, "b": 2, "c": 3}'),
        case("a text of three", '"abc"'),
    ],
)
def test_what_is_no_held_message_is_refused(raw: str) -> None:
    with pytest.raises(MessageError, match="not a"):
        read_held(raw)


def test_a_refusal_is_short_and_shows_nothing_of_the_message() -> None:
    with pytest.raises(MessageError) as refused:
        read("no message " + "x" * 10_000)
    assert str(refused.value) == "not a message of kombu (10011 characters)"


def test_a_refusal_does_not_show_the_body() -> None:
    with pytest.raises(MessageError) as refused:
        read(ON_THE_WIRE[:-1])
    assert json.loads(ON_THE_WIRE)["body"][:8] not in str(refused.value)


@pytest.mark.parametrize("reader", [read, read_held, reroute_to_celery])
@pytest.mark.parametrize("opening", ["[", '{"headers":'])
def test_what_is_nested_too_deep_is_refused(reader: Callable[[str], Any], opening: str) -> None:
    with pytest.raises(MessageError):
        reader(opening * 100_000)


# --- readdressing ------------------------------------------------------------------------------


def test_a_rerouted_message_differs_in_its_address_and_in_nothing_else() -> None:
    after = json.loads(reroute(ON_THE_WIRE, "celery"))
    before = json.loads(ON_THE_WIRE)
    assert after["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    before["properties"]["delivery_info"] = after["properties"]["delivery_info"]
    assert after == before
    assert list(after) == list(before)


def test_a_migrated_message_has_its_address_and_a_mark() -> None:
    envelope, text, why_not = migrated(ON_THE_WIRE, "w1@t", "nxs.default/w2@t", 7.5, lambda _: "")
    assert (envelope, why_not) == (read(ON_THE_WIRE), "")
    after = json.loads(text)
    assert after["headers"].pop(MOVED_HEADER) == {"from": "w1@t", "at": 7.5}
    assert after == json.loads(reroute(ON_THE_WIRE, "nxs.default/w2@t"))
    assert read(text).moved == {"from": "w1@t", "at": 7.5}


def test_a_message_that_may_not_migrate_is_not_written_anew() -> None:
    told = migrated(ON_THE_WIRE, "w1@t", "q", 7.5, lambda e: f"{e.task} is pinned")
    assert told == (read(ON_THE_WIRE), "", "shop.mail is pinned")
    with pytest.raises(MessageError):
        migrated("null", "w1@t", "q", 7.5, lambda _: "")


@pytest.mark.parametrize("mark", [None, 7, "w1", [1]])
def test_a_mark_that_nxs_did_not_write_is_none(mark: Any) -> None:
    assert read(changed(ON_THE_WIRE, "headers", MOVED_HEADER, to=mark)).moved is None


def test_the_rest_of_the_address_is_kept() -> None:
    info = {"exchange": "shop", "routing_key": "mail", "redelivered": True}
    raw = changed(ON_THE_WIRE, "properties", "delivery_info", to=info)
    after = json.loads(reroute(raw, "nxs.w2@shop"))["properties"]["delivery_info"]
    assert after == {"exchange": "", "routing_key": "nxs.w2@shop", "redelivered": True}


@pytest.mark.parametrize("info", [None, "x", [], 5])
def test_a_message_without_a_proper_address_gets_one(info: Any) -> None:
    raw = changed(ON_THE_WIRE, "properties", "delivery_info", to=info)
    after = json.loads(reroute(raw, "celery"))["properties"]["delivery_info"]
    assert after == {"exchange": "", "routing_key": "celery"}


def test_a_message_that_celery_publishes_is_readdressed(publish: Callable[..., str]) -> None:
    raw = publish(TASK, "größe", task_id="an-id", priority=3)
    after = reroute(raw, "nxs.größe@shop")
    assert read(after) == read(raw)
    before, now = json.loads(raw), json.loads(after)
    assert now["properties"].pop("delivery_info")["routing_key"] == "nxs.größe@shop"
    before["properties"].pop("delivery_info")
    assert now == before


# --- properties --------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(
    st.sampled_from(("id", "task", "nxs", "redelivered", "delivery_info", "correlation_id", "x")),
    values,
    max_size=5,
)
messages = st.fixed_dictionaries(
    {"headers": objects | values, "properties": objects | values},
    optional={"body": st.text(max_size=8), "content-type": values},
)
texts = st.text() | values.map(json.dumps) | messages.map(json.dumps)


def quietly(reader: Callable[[str], Any], raw: str) -> Any:
    try:
        return reader(raw)
    except MessageError:
        return None


@examples(150)
@given(texts)
def test_whatever_stands_there_is_read_or_refused(raw: str) -> None:
    envelope = quietly(read, raw)
    assert envelope is None or isinstance(envelope.task_id, str)
    moved = quietly(reroute_to_celery, raw)
    assert (moved is None) == (envelope is None)
    quietly(read_held, raw)
    if envelope is not None:
        assert read_held(held(raw)) == envelope
        assert read(moved) == envelope


@examples(80)
@given(
    st.fixed_dictionaries(
        {"headers": objects, "properties": objects, "body": st.text(max_size=8)},
        optional={"content-type": values},
    ),
    st.text(max_size=20),
)
def test_everything_but_the_address_survives(message: dict[str, Any], queue: str) -> None:
    after = json.loads(reroute(json.dumps(message), queue))
    info = after["properties"].pop("delivery_info")
    assert (info["exchange"], info["routing_key"]) == ("", queue)
    before = message["properties"].pop("delivery_info", {})
    assert after == message
    if isinstance(before, dict):
        assert info == {**before, "exchange": "", "routing_key": queue}
