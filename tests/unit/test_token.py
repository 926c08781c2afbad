"""The name of one delivery: what it says is read back as it was, and all else is no token."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.store.token import Token, parse
from tests.unit.builders import case, examples


@pytest.mark.parametrize(
    ("token", "text"),
    [
        case("a plain name", Token("w1@host", 1, 1), "w1@host|1|1"),
        case("large numbers", Token("w1@host", 12, 10**9), "w1@host|12|1000000000"),
        case("a name with the mark in it", Token("a|1|2", 3, 4), "a|1|2|3|4"),
        case("a name of no letters", Token("", 1, 2), "|1|2"),
        case("a name of many bytes", Token("größe@主机", 1, 2), "größe@主机|1|2"),
    ],
)
def test_a_token(token: Token, text: str) -> None:
    assert str(token) == text
    assert parse(text) == token


@pytest.mark.parametrize(
    "tag",
    [
        case("nothing", ""),
        case("None", None),
        case("a number, as other transports have it", 7),
        case("bytes", b"w1@host|1|2"),
        case("what kombu makes", str(uuid.uuid4())),
        case("two parts", "1|2"),
        case("an epoch that is none", "w1|x|2"),
        case("a number that is none", "w1|1|"),
        case("a negative number", "w1|1|-2"),
        case("a signed number", "w1|1|+2"),
        case("a broken number", "w1|1|2.0"),
        case("spaces", "w1| 1|2"),
    ],
)
def test_what_is_no_token(tag: Any) -> None:
    assert parse(tag) is None


@examples(200)
@given(st.text(), st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_token_is_read_as_it_was(instance: str, epoch: int, number: int) -> None:
    token = Token(instance, epoch, number)
    assert parse(str(token)) == token


@examples(200)
@given(st.text("w1|23٣²", max_size=12))
def test_whatever_stands_there_is_a_token_or_none(text: str) -> None:
    token = parse(text)
    if token is not None:
        assert (token.epoch, token.number) >= (0, 0)
        assert parse(str(token)) == token
