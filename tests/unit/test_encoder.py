"""The parts that a message is put together from. Whole messages: integration/test_encoding.py."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import pytest
from celery import Celery
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from redis.connection import Connection

from nxs_tasks.errors import OptionError
from nxs_tasks.model.decision import Placement
from nxs_tasks.store.message import placed_header
from nxs_tasks.store.publisher import (
    PLACE,
    PLACE_SHA,
    REMEMBERED_S,
    SCRIPT,
    SCRIPT_SHA,
    Room,
    Write,
    pack,
)
from nxs_tasks.submission import times
from nxs_tasks.submission.argsrepr import describe
from nxs_tasks.submission.destination import placed_json
from nxs_tasks.submission.draft import level
from nxs_tasks.submission.encoder import arguments_json, new_id, new_ids
from nxs_tasks.submission.options import CELERY, MESSAGE, check_known, for_celery
from nxs_tasks.submission.outcome import BatchResult, Fate, Submission, SubmitOutcome
from nxs_tasks.submission.routing import special


class Size(IntEnum):
    SMALL = 1


class Basket(list[int]):
    pass


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.uuids()
    | st.datetimes()
    | st.just(Size.SMALL)
    | st.just(Basket([1, 2]))
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text() | st.integers() | st.none() | st.booleans()
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner),
        max_leaves=15,
    )


# what logs and monitors are shown


@given(
    nested(LEAVES), st.sampled_from([1024, 60, 20, 1, 0]), st.sampled_from([3, 1, 2, 5, 0, None])
)
def test_arguments_are_described_as_celery_does(
    value: Any, longest: int, levels: int | None
) -> None:
    assert describe(value, longest, levels) == saferepr(value, longest, levels)


def test_a_list_in_itself_is_described_as_celery_does() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert describe((circle,), 1024, 3) == saferepr((circle,), 1024, 3)


# arguments as JSON


@given(nested(LEAVES))
def test_arguments_are_encoded_as_kombu_does(value: Any) -> None:
    assert arguments_json([value]) == kombu_json.dumps([value])


class Odd:
    def __json__(self) -> str:
        raise KeyError("odd")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value", [[object()], [{(1, 2): 3}], [Odd()], CIRCLE, [1j]], ids=lambda v: type(v[0]).__name__
)
def test_what_cannot_be_encoded_fails_as_in_kombu(value: Any) -> None:
    def error_of(dumps: Any) -> tuple[type, str]:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is, it is the same
            dumps(value)
        return type(caught.value), str(caught.value)

    for _ in range(2):
        assert error_of(arguments_json) == error_of(kombu_json.dumps)
    assert arguments_json([[1], [1]]) == "[[1], [1]]", "the failures before left something behind"


# ids


def test_ids_are_random_uuids() -> None:
    found = new_ids(2000)
    for text in found:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
    assert len(set(found)) == 2000
    assert {text[19] for text in found} == set("89ab")
    for place in (0, 7, 9, 15, 17, 20, 24, 35):
        assert len({text[place] for text in found}) == 16, "not all digits occur there"
    assert new_ids(0) == []


def test_ids_one_by_one_are_never_given_twice() -> None:
    found = [new_id() for _ in range(1000)]
    assert len(set(found)) == 1000
    assert all(uuid.UUID(text).version == 4 for text in found)


def test_a_forked_child_has_ids_of_its_own() -> None:
    new_id()  # from here on there are some in advance
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(new_id() for _ in range(300)).encode())
        os._exit(0)
    os.close(write)
    mine = {new_id() for _ in range(300)}
    with os.fdopen(read) as pipe:
        theirs = set(pipe.read().split("\n"))
    os.waitpid(child, 0)
    assert len(theirs) == 300
    assert not mine & theirs


# the header of the placement


@given(
    st.none() | st.text(),
    st.none() | st.floats(0, 1),
    st.text(),
    st.floats(0, 4e9),
)
def test_the_placement_as_json(
    instance: str | None, score: float | None, reason: str, at: float
) -> None:
    placement = Placement(task="t", instance=instance, score=score, reason=reason)
    assert placed_json(placement, at) == json.dumps(placed_header(placement, at))


# priorities, as kombu's `_get_message_priority`


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(0, 0), (3, 3), (9, 9), (10, 9), (-1, 0), ("6", 6), (None, 0), ("high", 0), (2.9, 2), ([], 0)],
)
def test_the_level_of_a_priority(priority: Any, expected: int) -> None:
    assert level(priority) == expected


# times


@pytest.fixture
def app() -> Any:
    return Celery("shop", set_as_current=False)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"countdown": "5"}, "countdown='5': expected a number of seconds"),
        ({"countdown": -(2**40)}, "countdown=-1099511627776: expected a number of seconds above"),
        ({"countdown": 1e15}, "countdown=1000000000000000.0: no calendar goes so far"),
        ({"countdown": float("inf")}, "countdown=inf: no calendar goes so far"),
        ({"eta": 5}, "eta=5: expected a datetime, or its ISO text"),
        ({"expires": [1]}, r"expires=\[1\]: expected a datetime, or its ISO text"),
        ({"expires": "tomorrow"}, "expires='tomorrow': expected a datetime, or its ISO text"),
        ({"expires": 1e15}, "expires=1000000000000000.0: no calendar goes so far"),
    ],
)
def test_a_bad_time_is_named(app: Any, given_: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        times.resolve(app, *(given_.get(name) for name in ("countdown", "eta", "expires")))


def test_what_expires_in_the_past_is_warned_about(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = times.resolve(app, None, None, datetime(2020, 1, 1, tzinfo=UTC))
    assert found.expires_s == 0
    assert "in the past" in caplog.text


# options


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("countdwon", "submit\\(\\) has no option 'countdwon': did you mean 'countdown'"),
        ("zzz", "submit\\(\\) has no option 'zzz': see apply_async"),
    ],
)
def test_an_unknown_option_is_refused(name: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        check_known({"priority": 3, name: 1})


def test_known_options_and_stamps_are_let_through() -> None:
    check_known(dict.fromkeys(MESSAGE | CELERY))
    check_known({"stamped_headers": ["tenant"], "tenant": "a"})
    with pytest.raises(OptionError, match="'tenant'"):
        check_known({"tenant": "a"})


def test_who_must_carry_an_option_out() -> None:
    assert for_celery({"priority": 3, "exchange": "x"}) == "exchange"
    assert for_celery({"priority": 3, "exchange": None}) == ""
    assert not MESSAGE & CELERY


# commands


@pytest.mark.parametrize(
    "lists",
    [
        {},
        {"celery": ["a"]},
        {"celery": ("a", "bb", ""), "celery\x06\x163": ["c" * 3000]},
        {"zażółć": ["é", "\udcff", "🦀"], "b": ["ascii"]},
        {"zażółć": ["é\udcff🦀"]},
    ],
    ids=["none", "one", "some", "not only ASCII", "one that is not ASCII"],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_write_is_packed_as_the_client_packs_it(lists: dict[str, list[str]], whole: bool) -> None:
    arguments = [str(REMEMBERED_S)]
    for messages in lists.values():
        arguments += [str(len(messages)), *messages]
    head = ("EVAL", SCRIPT) if whole else ("EVALSHA", SCRIPT_SHA)
    connection: Any = Connection(encoding_errors="surrogateescape")  # type: ignore[no-untyped-call]
    told = connection.pack_command(*head, 1 + len(lists), "producer", *lists, 7, *arguments)
    assert pack("producer", Write("p", 7, lists), whole=whole) == b"".join(told)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("text", ["ascii", "zażółć 🦀"])
def test_a_write_for_free_slots_is_packed_as_the_client_packs_it(text: str, whole: bool) -> None:
    lists = {"own": [text, "b"], "celery": ["c"]}
    write = Write("p", 7, lists, {"own": Room("celery", "waiting", ("record", "3", text))})
    head = ("EVAL", PLACE) if whole else ("EVALSHA", PLACE_SHA)
    keys = ("producer", "waiting", "own", "celery", "celery", "celery")
    arguments = (7, REMEMBERED_S, 2, 3, "record", "3", text, text, "b", 1, 0, "c")
    connection: Any = Connection(encoding_errors="surrogateescape")  # type: ignore[no-untyped-call]
    told = connection.pack_command(*head, len(keys), *keys, *arguments)
    assert pack("producer", write, whole=whole) == b"".join(told)


# outcomes


def test_a_batch_result_is_a_sequence_of_submissions() -> None:
    accepted = Fate(SubmitOutcome.ACCEPTED, "best", "celery")
    rejected = Fate(SubmitOutcome.REJECTED, "no JSON", "celery")
    result = BatchResult(["a", "b", "c"], [accepted, rejected, accepted])
    assert len(result) == 3
    assert list(result)[1] == Submission("b", SubmitOutcome.REJECTED, "no JSON", "celery")
    assert result[-1].id == "c"
    assert [s.id for s in result[1:]] == ["b", "c"]
    assert result.counts() == {SubmitOutcome.ACCEPTED: 2, SubmitOutcome.REJECTED: 1}
    assert result.reasons() == {"best": 2, "no JSON": 1}
    with pytest.raises(IndexError):
        result[3]


def test_a_queue_that_needs_kombu() -> None:
    from kombu import Exchange, Queue
    from kombu.common import Broadcast

    assert special(Queue("a", Exchange("e"))) == ""
    assert special(Queue("a", Exchange(""))) == ""
    assert "topic" in special(Queue("a", Exchange("e", type="topic")))
    assert "expires" in special(Queue("a", Exchange("e"), expires=5))
    assert "arguments" in special(Queue("a", Exchange("e"), queue_arguments={"x-expires": 5}))
    assert "fanout" in special(Broadcast("a"))
