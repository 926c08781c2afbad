"""Lines to the broker on which each write carries a producer's name and a number.

A write that fails is sent once more, on a fresh connection, under the same name and number, so that
it takes effect once (`publish.lua`). If it is still not known what became of it, the line is given
up with its name: whoever keeps the write can settle it later (`void.lua`).

The time is the caller's. An answer is awaited for no longer than is left, and connecting is done in
a thread that can be left behind, because nothing bounds how long a name is looked up.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from nxs_tasks.deadline import Deadline, within
from nxs_tasks.errors import BrokerError
from nxs_tasks.store import scripts
from nxs_tasks.store.connect import explained
from nxs_tasks.store.publisher import NO_ROOMS, REMEMBERED_S, Room, Write, digest, encoded, pack
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.tick import Tick, ticked, was_sent

UNIQUE = scripts.text("publish_unique")
VOID = scripts.text("void")
EXPIRE = scripts.text("expire")
#: Of what is left, the first try gets so much, so that there is a second on a fresh connection.
FIRST_TRY = 0.5
#: Of one process.
MOST_LINES = 10_000
#: What a server answers that may take the same write later: as the client tells it, or, by an older
#: server or where the client knows no name for it, in a text.
FOR_NOW = (
    AuthenticationError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
FOR_NOW_TOLD = re.compile(r"\b(OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|BUSY|NOAUTH|NOPERM)\b")
#: A time-out of a socket is set anew when it is less exact: each setting is a call of the system.
NEARLY = 0.95
#: Bytes read at once of an answer of one line.
LONGEST_LINE = 1024
#: Looks for an answer before the thread goes to sleep: about as many microseconds.
GLANCES = 30
_let_others_run: Callable[[], object] = getattr(os, "sched_yield", lambda: None)
#: Packs a command; with the whole script where the server does not know it.
Packed = Callable[[bool], bytes]
#: Reads one answer of a connection.
Read = Callable[[Any], Any]


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
        #: One that nobody has any more ends all connections of its pool.
        self._client = store.client
        self._pool = store.client.connection_pool
        self._connection: Any = None
        self._producer = uuid4().hex
        self._producer_key = store.keys.producer(self._producer)
        self._number = 0

    def next_write(
        self, lists: Mapping[str, Sequence[str]], rooms: Mapping[str, Room] = NO_ROOMS
    ) -> Write:
        """A write of this line's producer. The one before must have been confirmed."""
        self._number += 1
        return Write(self._producer, self._number, lists, rooms)

    def publish(self, write: Write, deadline: Deadline, tick: Tick | None = None) -> bool:
        """True if it was written now, False if it had been before. Raises `NotWritten`.

        With `tick` it is a run of the schedule: raises `NotLeading`, `AnotherRun` too.
        """
        own = write.producer == self._producer
        key = self._producer_key if own else self._keys.producer(write.producer)

        def packed(whole: bool) -> bytes:
            return pack(key, write, whole=whole, tick=tick)

        if tick is None:
            return bool(self._written(write, packed, deadline, _number))
        answer = self._written(write, packed, deadline)
        tick.refuse(answer)
        return bool(answer) and not was_sent(answer)

    def publish_unique(
        self,
        write: Write,
        task_id: str,
        unique_key: str,
        deadline: Deadline,
        age: int = 0,
        tick: Tick | None = None,
    ) -> str:
        """Write one message if its key is free; the id of the task that has it then.

        One of an age above 0 is written in any case. Raises `NotWritten`; for a `tick` as above.
        """
        [(list_key, [message])] = write.lists.items()
        keys = [self._keys.producer(write.producer), self._keys.unique(unique_key), list_key]
        arguments = [write.number, REMEMBERED_S, task_id, message, age]
        if tick is None:
            return str(self._written(write, self._script(UNIQUE, keys, arguments), deadline))
        keys, arguments = [*keys, *tick.keys], [*arguments, *tick.arguments]
        answer = self._written(write, self._script(ticked(UNIQUE), keys, arguments), deadline)
        tick.refuse(answer)
        return task_id if was_sent(answer) else str(answer)

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
        name = digest(text)

        def packed(whole: bool) -> bytes:
            head = ("EVAL", text) if whole else ("EVALSHA", name)
            command = (*head, str(len(keys)), *keys, *map(str, arguments))
            return b"".join((b"*%d\r\n" % len(command), *map(encoded, command)))

        return packed

    def _written(
        self, write: Write, packed: Packed, deadline: Deadline, read: Read | None = None
    ) -> Any:
        maybe = False
        for share in (FIRST_TRY, 1.0):
            sent = False
            limit = deadline.part(share)
            try:
                connection = self._connected(limit)
                sent = True
                return _answer(connection, packed, limit, read or _anything)
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


def _answer(connection: Any, packed: Packed, limit: Deadline, read: Read) -> Any:
    try:
        return _round_trip(connection, packed(False), limit, read)
    except NoScriptError:
        return _round_trip(connection, packed(True), limit, read)


def _round_trip(connection: Any, command: bytes, limit: Deadline, read: Read) -> Any:
    line = connection._sock
    if line is None:
        # It would connect by itself, for as long as it takes.
        raise RedisConnectionError("the connection was closed")
    wait_s = limit.remaining()
    if not NEARLY * wait_s < (line.gettimeout() or 0.0) <= wait_s:
        line.settimeout(wait_s)
    line.sendall(command)
    return read(connection)


def _number(connection: Any) -> int:
    """An answer that is a number or an error.

    The client would take longer to read it than the server takes for the write.
    """
    receive = connection._sock.recv
    answer = _at_a_glance(connection._sock) or receive(LONGEST_LINE)
    while answer[-2:] != b"\r\n":
        more = receive(LONGEST_LINE)
        if not more:
            raise RedisConnectionError("the server closed the connection")
        answer += more
    if answer[:1] == b":":
        return int(answer[1:-2])
    if answer[:1] == b"-":
        raise connection._parser.parse_error(answer[1:-2].decode("utf-8", "replace"))
    raise RedisConnectionError("the server answered with something else than a number")


def _at_a_glance(line: Any) -> bytes:
    """An answer that is there in some microseconds, else nothing.

    Many are, and to be woken takes longer than to look again.
    """
    # Of an encrypted line the bytes are not the answer.
    if type(line) is socket.socket:
        number = line.fileno()
        for _ in range(GLANCES):
            try:
                return os.read(number, LONGEST_LINE)
            except BlockingIOError:
                # The server may want this processor.
                _let_others_run()
    return b""


def _anything(connection: Any) -> Any:
    return connection.read_response()


def _is_refused(error: Exception) -> bool:
    """Whether the server answers and the fault is the write's own."""
    for_now = isinstance(error, FOR_NOW) or FOR_NOW_TOLD.search(str(error))
    return isinstance(error, ResponseError) and not for_now


class Lines:
    """The free lines of one process. Safe to use in any thread; not to be taken into a fork."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._free: list[Line] = []
        self._lock = threading.Lock()
        # As many as there are threads: who waited for another's line would lose time that it has.
        store.client.connection_pool.max_connections = MOST_LINES

    def line(self) -> Loan:
        """One to use: `with lines.line() as line`."""
        return Loan(self)

    def take(self) -> Line:
        """A free one, or a new one."""
        try:
            return self._free.pop()
        except IndexError:
            return Line(self._store)

    def give(self, line: Line) -> None:
        """Have one back."""
        self._free.append(line)

    def close(self) -> None:
        """End all that are free."""
        with self._lock:
            lines, self._free = self._free, []
        for line in lines:
            line.close()


class Loan:
    """A line on loan. After an error nobody uses it again, nor any that was idle meanwhile."""

    __slots__ = ("_line", "_lines")

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __enter__(self) -> Line:
        self._line = self._lines.take()
        return self._line

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._lines.give(self._line)
        else:
            self._line.close()
            self._lines.close()
