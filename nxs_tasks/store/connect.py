"""A client from a Celery broker URL, and clear errors when there is no server to serve us.

Understood: `redis://`, `rediss://`, `redis+socket://`, `sentinel://` (several, joined by ";", with
`master_name` in the transport options), each as Celery itself reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from nxs_tasks.errors import (
    BrokerError,
    BrokerRefused,
    BrokerTooOld,
    BrokerUnreachable,
    SettingError,
)

#: kombu's own scripts need ZADD GT.
OLDEST_SERVER = (6, 2)
SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
SENTINEL_PORT = 26379

Client = redis.Redis


def safe_url(url: str) -> str:
    """The address without its password, fit for a message.

    Also for an address that is malformed: whatever stands before the last "@" may be a password
    that somebody forgot to quote.
    """
    return ";".join(_without_password(part) for part in re.split(r";(?=[\w+.-]+://)", url))


def place_of_url(url: str) -> str:
    """The address without user and password: who asks changes, and the place is the same."""
    return re.sub(r"(://)[^/;]*@", r"\1", safe_url(url))


def _without_password(url: str) -> str:
    url = re.sub(r"(?i)([?&]\w*password=)[^&]*", r"\1***", url)
    scheme, mark, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    if not mark or ":" not in login:
        return url
    return f"{scheme}://{login.partition(':')[0]}:***{at}{host}"


def check_scheme(url: str) -> None:
    """Refuse a broker that is not Redis; raises `SettingError`."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise SettingError(
            f"broker_url={safe_url(url)!r}: NXS places work in Redis or Valkey; "
            f"use one of {', '.join(s + '://' for s in SCHEMES)}"
        )


def connect(
    url: str,
    options: Mapping[str, Any] | None = None,
    ssl: Any = None,
    timeout_s: float = 2.0,
    client_name: str | None = None,
) -> Client:
    """A lazy client: nothing is sent yet. `options` are Celery's `broker_transport_options`."""
    check_scheme(url)
    options = options or {}
    common: dict[str, Any] = {
        "decode_responses": True,
        # The older protocol is understood by every server, also by one that is too old for us:
        # so that this can be said.
        "protocol": 2,
        # A message need not be valid UTF-8; this keeps its bytes intact through read and write.
        "encoding_errors": "surrogateescape",
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "client_name": client_name,
        # One more try after a closed connection; a time-out is not tried again.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }
    if isinstance(ssl, Mapping):
        common.update(ssl)
    try:
        if url.startswith("sentinel://"):
            return _from_sentinels(url, options, {**common, "ssl": True} if ssl else common)
        first = url.split(";")[0]
        if first.startswith("redis+socket://"):
            return _from_socket(first, common)
        if ssl and first.startswith("redis://"):
            first = "rediss://" + first.removeprefix("redis://")
        return redis.Redis.from_url(first, **common)
    except ValueError:
        # The cause would quote the part that it could not read, which may be a password.
        raise SettingError(
            f"broker_url={safe_url(url)!r} cannot be read: expected redis://[USER:PASSWORD@]HOST"
            "[:PORT][/DB], with special characters of the password quoted (%40 for @)"
        ) from None


def _from_socket(url: str, common: dict[str, Any]) -> Client:
    parts = urlsplit(url)
    db = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    return redis.Redis(
        unix_socket_path=unquote(parts.path),
        db=int(db),
        password=unquote(parts.password) if parts.password else None,
        **common,
    )


def _from_sentinels(url: str, options: Mapping[str, Any], common: dict[str, Any]) -> Client:
    master = options.get("master_name")
    if not master:
        raise SettingError(
            "broker_transport_options: a sentinel:// broker needs 'master_name', "
            'such as {"master_name": "mymaster"}'
        )
    hosts = [urlsplit(part) for part in url.split(";")]
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [(h.hostname or "localhost", h.port or SENTINEL_PORT) for h in hosts],
        sentinel_kwargs={
            "socket_timeout": common["socket_timeout"],
            "socket_connect_timeout": common["socket_connect_timeout"],
            **(options.get("sentinel_kwargs") or {}),
        },
    )
    login = hosts[0]
    client: Client = sentinel.master_for(
        master,
        username=unquote(login.username) if login.username else None,
        password=unquote(login.password) if login.password else None,
        db=int(login.path.strip("/") or 0),
        **common,
    )
    return client


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the client's errors into ours, with the address and what to do, never a password."""
    where = safe_url(url)
    try:
        yield
    except (RedisError, OSError) as error:
        raise _explain(error, where) from None


def _explain(error: Exception, where: str) -> BrokerError:
    said = _first_line(error)
    if isinstance(error, NoPermissionError):
        return BrokerRefused(
            f"the server at {where} forbids it to this user ({said}): allow it in the server's ACL"
        )
    # Told by different errors, as the server, its version and the client please.
    if re.search("NOAUTH|Authentication required", said):
        return BrokerRefused(f"the server at {where} wants a password: put it into broker_url")
    refused = isinstance(error, AuthenticationError | AuthorizationError)
    if refused or re.search("WRONGPASS|invalid (username-)?password", said):
        return BrokerRefused(
            f"the server at {where} refuses us ({said}): check user and password in broker_url"
        )
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return BrokerUnreachable(
            f"no Redis or Valkey server answers at {where} ({said}): "
            "is it running, and is broker_url right?"
        )
    return BrokerError(f"the server at {where} answers: {said}")


def out_of_memory(error: Exception) -> bool:
    """Whether the server refused a command because it may use no more memory."""
    return isinstance(error, redis.exceptions.OutOfMemoryError)


def forgot_script(error: Exception) -> bool:
    """Whether the server does not know the script that it was asked for by its name."""
    return isinstance(error, redis.exceptions.NoScriptError)


def require_version(info: Mapping[str, Any], url: str) -> None:
    """Raises `BrokerTooOld` when INFO tells a version below `OLDEST_SERVER`."""
    text = str(info.get("redis_version", ""))
    found = tuple(int(n) for n in re.findall(r"\d+", text)[:2])
    if len(found) == 2 and found < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise BrokerTooOld(
            f"the server at {safe_url(url)} is version {text}; NXS needs {oldest} or newer"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return safe_url(lines[0]) if lines else type(error).__name__
