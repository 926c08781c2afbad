"""Addresses: what a message shows of them, which are understood, and what a client is made of."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis import SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from nxs_tasks.errors import (
    BrokerError,
    BrokerRefused,
    BrokerTooOld,
    BrokerUnreachable,
    SettingError,
)
from nxs_tasks.store.connect import check_scheme, connect, explained, require_version, safe_url
from tests.unit.builders import case, examples

URL = "redis://ann:s3cr3t@host:6379/0"

# --- what a message shows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        case("no login", "redis://host:6379/0", "redis://host:6379/0"),
        case("a password alone", "redis://:pw@host/0", "redis://:***@host/0"),
        case("user and password", "rediss://ann:pw@host:1/2", "rediss://ann:***@host:1/2"),
        case("a user alone", "redis://ann@host", "redis://ann@host"),
        case("an empty password", "redis://ann:@host", "redis://ann:***@host"),
        case("a quoted password", "redis://:p%40w%2F@host", "redis://:***@host"),
        case("a password with signs", "redis://:p#w?&=+%@host", "redis://:***@host"),
        case("an address of IPv6", "redis://:pw@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        case("a socket", "redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        case(
            "a socket with a password",
            "redis+socket://:pw@/run/redis.sock?virtual_host=1",
            "redis+socket://:***@/run/redis.sock?virtual_host=1",
        ),
        case(
            "several sentinels",
            "sentinel://:pw@a:26379;sentinel://:pw@b:26379",
            "sentinel://:***@a:26379;sentinel://:***@b:26379",
        ),
        case(
            "an at sign in the path: perhaps a password",
            "redis://host/a:b@c",
            "redis://host/a:***@c",
        ),
        case("another broker", "amqp://ann:pw@host//", "amqp://ann:***@host//"),
        case("no address at all", "localhost", "localhost"),
        case("nothing", "", ""),
        case(
            "an address within a sentence",
            "Error 111 connecting to redis://:pw@host. Refused.",
            "Error 111 connecting to redis://:***@host. Refused.",
        ),
    ],
)
def test_the_safe_form_of(url: str, shown: str) -> None:
    assert safe_url(url) == shown


passwords = st.text(min_size=6, max_size=20)
forms = st.sampled_from(
    (
        "redis://:{}@host:6379/0",
        "redis://ann:{}@host",
        "rediss://ann:{}@[::1]:6379/0?ssl_cert_reqs=none",
        "redis+socket://:{}@/run/redis.sock",
        "sentinel://:{0}@a:26379;sentinel://ann:{0}@b:26379;sentinel://c",
        "amqp://ann:{}@host//",
    )
)


@examples(100)
@given(passwords, forms)
def test_a_password_never_shows(password: str, form: str) -> None:
    quoted = quote(password, safe="")
    assume(quoted not in form)
    shown = safe_url(form.format(quoted))
    assert quoted not in shown
    assert shown == form.replace("{0}", "{}").replace("{}", "***")


@pytest.mark.parametrize(
    "password",
    [
        case("with a colon", "s3c:r3t"),
        case("with an at sign", "s3c@r3t"),
        case("that begins with an at sign", "@s3cr3t"),
        case("with a slash", "s3c/r3t"),
        case("with a semicolon", "s3c;r3t"),
    ],
)
def test_a_password_that_nobody_quoted_does_not_show_either(password: str) -> None:
    # The client takes the first colon and the last at sign for the bounds of the password.
    shown = safe_url(f"redis://:{password}@host:6379/0")
    assert "s3c" not in shown
    assert "r3t" not in shown


# --- which addresses are understood ------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://h", "redis+socket:///s", "sentinel://h", "sentinel://a;sentinel://b"],
)
def test_an_address_of_redis_is_taken(url: str) -> None:
    check_scheme(url)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h",
        "memory://",
        "sqs://",
        "",
        "http://h",
        "redis:h",
        "xredis://h",
        "REDIS//",
    ],
)
def test_another_address_is_refused_with_what_would_do(url: str) -> None:
    with pytest.raises(SettingError) as refused:
        check_scheme(url)
    assert str(refused.value) == (
        f"broker_url={url!r}: NXS places work in Redis or Valkey; "
        "use one of redis://, rediss://, redis+socket://, sentinel://"
    )


def test_a_refusal_of_an_address_shows_no_password() -> None:
    with pytest.raises(SettingError) as refused:
        check_scheme("amqp://ann:s3cr3t@host//")
    assert "amqp://ann:***@host//" in str(refused.value)
    with pytest.raises(SettingError):
        connect("amqp://ann:s3cr3t@host//")


@pytest.mark.parametrize(
    "url",
    [
        case("a port that is no number", "redis://host:port/0"),
        case("a password with a slash", "redis://:s3c/r3t@host/0"),
        case("a database that is no number", "sentinel://host/db"),
        case("a socket's database that is no number", "redis+socket:///s?virtual_host=db"),
        case("nothing but a scheme", "redis"),
    ],
)
def test_a_malformed_address_is_a_setting_error(url: str) -> None:
    with pytest.raises(SettingError, match="broker_url") as refused:
        connect(url, {"master_name": "mymaster"})
    assert "s3c" not in str(refused.value)


# --- clients, none of which connects -----------------------------------------------------------


def pool(url: str, **more: Any) -> Any:
    return connect(url, **more).connection_pool


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        case("host alone", "redis://host", {"host": "host"}),
        case(
            "everything",
            "redis://ann:p%40w@host:7000/3",
            {"host": "host", "port": 7000, "db": 3, "username": "ann", "password": "p@w"},
        ),
        case("the first of several", "redis://one;redis://two", {"host": "one"}),
        case(
            "a socket",
            "redis+socket:///run/redis.sock",
            {"path": "/run/redis.sock", "db": 0, "password": None},
        ),
        case(
            "a socket with a database and a password",
            "redis+socket://:p%40w@/run/a%20b.sock?virtual_host=2",
            {"path": "/run/a b.sock", "db": 2, "password": "p@w"},
        ),
    ],
)
def test_a_client_for(url: str, expected: dict[str, Any]) -> None:
    found = pool(url).connection_kwargs
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "redis+socket:///s", "sentinel://h"])
def test_every_client_has_a_name_a_time_limit_and_decodes_any_bytes(url: str) -> None:
    found = pool(
        url, options={"master_name": "m"}, timeout_s=1.5, client_name="nxs:shop:w1:1"
    ).connection_kwargs
    assert found["client_name"] == "nxs:shop:w1:1"
    assert found["socket_timeout"] == 1.5
    assert found.get("socket_connect_timeout", 1.5) == 1.5
    assert (found["decode_responses"], found["encoding_errors"]) == (True, "surrogateescape")


@pytest.mark.parametrize(
    ("url", "ssl", "encrypted"),
    [
        case("by the scheme", "rediss://h", None, True),
        case("by the setting", "redis://h", {"ssl_cert_reqs": "none"}, True),
        case("by a setting that is only True", "redis://h", True, True),
        case("not at all", "redis://h", None, False),
        case("not where the setting is False", "redis://h", False, False),
    ],
)
def test_a_client_is_encrypted(url: str, ssl: Any, encrypted: bool) -> None:
    found = pool(url, ssl=ssl)
    assert issubclass(found.connection_class, SSLConnection) is encrypted
    if isinstance(ssl, dict):
        assert found.connection_kwargs["ssl_cert_reqs"] == "none"


def test_a_socket_is_a_socket() -> None:
    assert pool("redis+socket:///s").connection_class is UnixDomainSocketConnection


def test_sentinels_need_the_name_of_the_master() -> None:
    for options in (None, {}, {"master_name": ""}, {"global_keyprefix": "x"}):
        with pytest.raises(SettingError) as refused:
            connect("sentinel://:s3cr3t@a", options)
        assert "broker_transport_options" in str(refused.value)
        assert '{"master_name": "mymaster"}' in str(refused.value)
        assert "s3cr3t" not in str(refused.value)


def test_a_client_behind_sentinels() -> None:
    found = pool(
        "sentinel://ann:p%40w@a:26380/3;sentinel://b",
        options={"master_name": "mymaster", "sentinel_kwargs": {"password": "other"}},
    )
    assert found.service_name == "mymaster"
    kwargs = found.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("ann", "p@w", 3)
    asked = [s.connection_pool.connection_kwargs for s in found.sentinel_manager.sentinels]
    assert [(a["host"], a["port"], a["password"]) for a in asked] == [
        ("a", 26380, "other"),
        ("b", 26379, "other"),
    ]


@pytest.mark.parametrize("ssl", [True, {"ssl_cert_reqs": "none"}], ids=["True", "options"])
def test_a_client_behind_sentinels_is_encrypted_by_the_setting(ssl: Any) -> None:
    found = pool("sentinel://a", options={"master_name": "m"}, ssl=ssl)
    assert issubclass(found.connection_class, SSLConnection)


# --- versions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["6.2", "6.2.14", "7.0.0", "7.2.4", "10.0.1", "255.255.255"])
def test_a_server_is_new_enough_at(version: str) -> None:
    require_version({"redis_version": version}, URL)


@pytest.mark.parametrize("version", ["6.1.9", "6.0.16", "5.0.14", "2.8.4"])
def test_a_server_is_too_old_at(version: str) -> None:
    with pytest.raises(BrokerTooOld) as refused:
        require_version({"redis_version": version}, URL)
    assert str(refused.value) == (
        f"the server at redis://ann:***@host:6379/0 is version {version}; NXS needs 6.2 or newer"
    )


@pytest.mark.parametrize(
    "info", [{}, {"redis_version": ""}, {"redis_version": "unstable"}, {"redis_version": None}]
)
def test_a_server_that_does_not_tell_its_version_is_condemned_by_nobody(
    info: dict[str, Any],
) -> None:
    require_version(info, URL)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        case("refused connection", RedisConnectionError("Error 111"), BrokerUnreachable, "111"),
        case("time-out", RedisTimeoutError("Timeout"), BrokerUnreachable, "is it running"),
        case("no route", OSError("No route to host"), BrokerUnreachable, "No route"),
        case("still loading", BusyLoadingError("loading"), BrokerUnreachable, "loading"),
        case(
            "wrong password", AuthenticationError("WRONGPASS"), BrokerRefused, "user and password"
        ),
        case("no permission", NoPermissionError("NOPERM"), BrokerRefused, "NOPERM"),
        case(
            "wrong password, told as a lost connection",
            RedisConnectionError("WRONGPASS invalid"),
            BrokerRefused,
            "check user and password",
        ),
        case(
            "wrong password, in the words of old servers",
            RedisConnectionError("invalid username-password pair"),
            BrokerRefused,
            "check user and password",
        ),
        case("no password", ResponseError("NOAUTH"), BrokerRefused, "wants a password"),
        case(
            "no password, in words",
            ResponseError("Authentication required."),
            BrokerRefused,
            "put it into broker_url",
        ),
        case("another answer", ResponseError("OOM command"), BrokerError, "answers: OOM command"),
        case("anything else", RedisError("odd"), BrokerError, "odd"),
        case("an error without a text", RedisError(), BrokerError, "RedisError"),
    ],
)
def test_an_error_of_the_client_becomes_ours(
    error: Exception, kind: type[BrokerError], words: str
) -> None:
    with pytest.raises(BrokerError) as raised, explained(URL):
        raise error
    assert type(raised.value) is kind
    assert words in str(raised.value)
    assert "redis://ann:***@host:6379/0" in str(raised.value)
    assert raised.value.__suppress_context__


def test_an_error_of_ours_shows_no_password_even_if_the_clients_does() -> None:
    with pytest.raises(BrokerUnreachable) as raised, explained(URL):
        raise RedisConnectionError(f"cannot reach {URL}\nand more")
    assert "s3cr3t" not in str(raised.value)
    assert re.search(r"\(cannot reach redis://ann:\*\*\*@host:6379/0\)", str(raised.value))


def test_an_error_of_somebody_else_passes() -> None:
    with pytest.raises(KeyError), explained(URL):
        raise KeyError("x")
