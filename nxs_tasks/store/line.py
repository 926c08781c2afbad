"""Lines to the broker on which each write carries a producer's name and a number.

A write that fails is sent once more, on a fresh connection, under the same name and number, so that
it takes effect once (`publish.lua`). If it is still not known what became of it, the line is given
up with its name: whoever keeps the write can settle it later (`void.lua`).

The time is the caller's. An answer is awaited for no longer than is left, and connecting is done in
a thread that can be left behind, because nothing bounds how long a name is looked up.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha1
from typing import Any
from uuid import uuid4

from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from nxs_tasks.deadline import Deadline, within
from nxs_tasks.errors import BrokerError
from nxs_tasks.store import scripts
from nxs_tasks.store.connect import explained
from nxs_tasks.store.publisher import REMEMBERED_S, Write, pack
from nxs_tasks.store.store import FleetStore

UNIQUE = scripts.text("publish_unique")
VOID = scripts.text("void")
EXPIRE = scripts.text("expire")
#: Of what is left, the first try gets so much, so that there is a second on a fresh connection.
FIRST_TRY = 0.5
#: Of one process.
MOST_LINES = 10_000
#: What a server says that can serve again later. Some say it in the middle of a text.
FOR_NOW = re.compile(
    r"\b(OOM|READONLY|MISCONF|LOADING|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY"
    r"|NOAUTH|WRONGPASS|NOPERM|max number of clients)\b"
)
#: Packs a command; with the whole script where the server does not know it.
Packed = Callable[[bool], bytes]


class NotWritten(BrokerError):
    """A write that the broker did not confirm.

    `maybe`: it may have been accepted all the same. `refused`: the server answers, and will not
    take this one.
    """

    def __init__(self, cause: BrokerError, write: Write, *, maybe: bool, refused: bool) -> None:
        super().__init__(str(cause))
        self.write = write
        self.maybe = maybe
        self.refused = refused


class Line:
    """One connection and one producer's name. For one thread at a time."""

    def __init__(self, store: FleetStore) -> None:
        self._keys = store.keys
        self._url = store.url
        self._pool = store.client.connection_pool
        self._connection: Any = None
        self._producer = uuid4().hex
        self._number = 0

    def next_write(self, lists: Mapping[str, Sequence[str]]) -> Write:
        """A write of this line's producer. The one before must have been confirmed."""
        self._number += 1
        return Write(self._producer, self._number, lists)

    def publish(self, write: Write, deadline: Deadline) -> bool:
        """True if it was written now, False if it had been before. Raises `NotWritten`."""
        key = self._keys.producer(write.producer)

        def packed(whole: bool) -> bytes:
            return pack(key, write, whole=whole)

        return bool(self._written(write, packed, deadline))

    def publish_unique(
        self, write: Write, task_id: str, unique_key: str, deadline: Deadline
    ) -> str:
        """Write one message if its key is free; the id of the task that has it then.

        Raises `NotWritten`.
        """
        [(list_key, [message])] = write.lists.items()
        keys = [self._keys.producer(write.producer), self._keys.unique(unique_key), list_key]
        arguments = [write.number, REMEMBERED_S, task_id, message]
        return str(self._written(write, self._script(UNIQUE, keys, arguments), deadline))

    def is_void(self, write: Write, deadline: Deadline) -> bool:
        """Whether a write of unknown end never takes effect; else it was accepted.

        It is then decided for good. Raises `NotWritten`.
        """
        keys = [self._keys.producer(write.producer)]
        packed = self._script(VOID, keys, [write.number, REMEMBERED_S])
        return bool(self._written(write, packed, deadline))

    def expire(self, keys: Sequence[str], milliseconds: int, deadline: Deadline) -> None:
        """Have keys expire so long from now. Raises `NotWritten`."""
        nothing = Write(self._producer, self._number, {})
        self._written(nothing, self._script(EXPIRE, keys, [milliseconds]), deadline)

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)

    def _script(self, text: str, keys: Sequence[str], arguments: Sequence[Any]) -> Packed:
        name = sha1(text.encode(), usedforsecurity=False).hexdigest()

        def packed(whole: bool) -> bytes:
            head = ("EVAL", text) if whole else ("EVALSHA", name)
            command = (*head, str(len(keys)), *keys, *map(str, arguments))
            return b"".join((b"*%d\r\n" % len(command), *map(_part, command)))

        return packed

    def _written(self, write: Write, packed: Packed, deadline: Deadline) -> Any:
        maybe = False
        for share in (FIRST_TRY, 1.0):
            sent = False
            limit = deadline.part(share)
            try:
                connection = self._connected(limit)
                sent = True
                return _answer(connection, packed, limit)
            except (RedisError, OSError) as error:
                self._drop()
                # An error that the server tells is its answer: it has not written.
                answered = isinstance(error, ResponseError | BusyLoadingError)
                maybe = maybe or (sent and not answered)
                failure = self._not_written(error, write, maybe)
                if failure.refused or deadline.over:
                    break
        raise failure from None

    def _not_written(self, error: Exception, write: Write, maybe: bool) -> NotWritten:
        refused = _is_refused(error)
        try:
            with explained(self._url):
                raise error
        except BrokerError as cause:
            return NotWritten(cause, write, maybe=maybe, refused=refused)

    def _connected(self, limit: Deadline) -> Any:
        if self._connection is None:
            pool = self._pool
            self._connection = within(limit.remaining(), pool.get_connection, pool.release)
        return self._connection

    def _drop(self) -> None:
        with suppress(RedisError, OSError):
            self.close()


def _answer(connection: Any, packed: Packed, limit: Deadline) -> Any:
    try:
        return _round_trip(connection, packed(False), limit)
    except NoScriptError:
        return _round_trip(connection, packed(True), limit)


def _round_trip(connection: Any, command: bytes, limit: Deadline) -> Any:
    if connection._sock is None:
        # It would connect by itself, for as long as it takes.
        raise RedisConnectionError("the connection was closed")
    connection._sock.settimeout(limit.remaining())
    connection.send_packed_command([command], check_health=False)
    return connection.read_response()


def _is_refused(error: Exception) -> bool:
    """Whether the server answers and the fault is the write's own."""
    return isinstance(error, ResponseError) and not FOR_NOW.search(str(error))


def _part(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Lines:
    """The free lines of one process. Safe to use in any thread; not to be taken into a fork."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._free: list[Line] = []
        self._lock = threading.Lock()
        # As many as there are threads: who waited for another's line would lose time that it has.
        store.client.connection_pool.max_connections = MOST_LINES

    @contextmanager
    def line(self) -> Iterator[Line]:
        """One to use. After an error nobody uses it again, nor any that was idle meanwhile."""
        with self._lock:
            line = self._free.pop() if self._free else Line(self._store)
        try:
            yield line
        except BaseException:
            line.close()
            self.close()
            raise
        with self._lock:
            self._free.append(line)

    def close(self) -> None:
        """End all that are free."""
        with self._lock:
            lines, self._free = self._free, []
        for line in lines:
            line.close()
