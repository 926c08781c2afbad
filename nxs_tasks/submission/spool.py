"""Messages that the broker did not take, in a SQLite file of this machine.

All processes of a fleet on a machine share the file. What `keep` has taken is on the disk: neither
`kill -9` nor a power failure loses it. It is as large as a setting allows.

Rows stay in the order in which they came. One that was sent, and nobody knows what became of it,
has the name and the number of that write, so that it is settled and not just sent again
(`batches.py`). One that the broker refuses for a reason of its own stays, for a person to see.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nxs_tasks.clock import wait_until
from nxs_tasks.deadline import Deadline
from nxs_tasks.errors import SpoolError

#: What the file must be to be ours; rises when a table changes.
VERSION = 1
PAGE_BYTES = 4096
#: What is taken out needs a little room too.
SPARE_PAGES = 256
#: Between two looks whether another process still writes, s.
POLL_S = (0.001, 0.004)
#: Between two looks whether another thread has written, s.
WAIT_S = 0.05
#: For what nobody waits for: a page of rows to show, a batch to send.
PATIENCE_S = 10.0

TABLES = """
CREATE TABLE kept (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  broker TEXT NOT NULL,
  at REAL NOT NULL,
  why TEXT NOT NULL,
  list TEXT NOT NULL,
  message BLOB NOT NULL,
  task_id TEXT NOT NULL DEFAULT '',
  unique_key TEXT NOT NULL DEFAULT '',
  producer TEXT NOT NULL DEFAULT '',
  number INTEGER NOT NULL DEFAULT 0,
  refused TEXT NOT NULL DEFAULT ''
);
CREATE INDEX unique_keys ON kept (broker, unique_key) WHERE unique_key != '';
CREATE TABLE sending (
  broker TEXT PRIMARY KEY,
  producer TEXT NOT NULL,
  at REAL NOT NULL,
  list TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL
);
CREATE TABLE drainer (broker TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One message of the spool. `producer` and `number` are of a write of unknown end."""

    broker: str
    at: float  # wall time when it came, s
    why: str
    list: str
    message: str
    task_id: str = ""
    unique_key: str = ""
    producer: str = ""
    number: int = 0
    refused: str = ""  # why the broker will not take it; '' = it is sent when the broker is back
    id: int = 0


COLUMNS = "id, broker, at, why, list, message, task_id, unique_key, producer, number, refused"


def from_row(row: Sequence[object]) -> Kept:
    """A row of `COLUMNS`."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    return Kept(**{**values, "message": decode(values["message"])})  # type: ignore[arg-type]


def decode(message: object) -> str:
    """A message as it was handed in: it need not be valid UTF-8."""
    return str(bytes(message).decode("utf-8", "surrogateescape"))  # type: ignore[call-overload]


@dataclass(slots=True, eq=False)
class _Job:
    """Messages of one caller, and what became of them."""

    rows: Sequence[Kept]
    owner: str = ""
    error: SpoolError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Spool:
    """The file of one fleet on this machine. Safe to use in any thread, and after a fork."""

    def __init__(self, path: Path, limit_mb: float) -> None:
        self.path = path
        self._limit_mb = limit_mb
        self._limit_pages = max(1, int(limit_mb * (1 << 20) / PAGE_BYTES))
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # which file that is
        self._committed = False
        self._reset()
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._reset
        )

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()

    def _before_fork(self) -> None:
        # A fork would believe that it has SQLite's locks. Whoever closes the file then believes
        # that nobody else has it, and removes what the fork goes on writing into.
        self._lock.acquire()
        self._disconnect()

    def _after_fork(self) -> None:
        self._lock.release()

    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return self.path.exists()

    def close(self) -> None:
        """Close the file; opened anew when needed."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def keep(self, rows: Sequence[Kept], deadline: Deadline) -> str:
        """Take messages in, all or none; on the disk when this returns.

        Of one with a `unique_key` returns the id of the task that has it here: another's if one was
        there before, and then nothing is taken in, unless it was sent once already. Raises
        `SpoolError`.
        """
        job = _Job(rows)
        self._jobs.append(job)
        # Whoever comes first writes for all that wait: the disk is waited for once.
        if not self._lock.acquire(timeout=deadline.remaining()):
            self._wait_for_others(job)
        else:
            try:
                if not job.done.is_set():
                    self._write_for_all(job, deadline)
            finally:
                self._lock.release()
        if job.error is not None:
            raise job.error
        return job.owner

    def _wait_for_others(self, job: _Job) -> None:
        """Another thread writes: until it has written this too. Raises `SpoolError` if not."""
        while True:
            with suppress(ValueError):
                self._jobs.remove(job)
                raise self._error("is busy: the disk is too slow")
            if job.done.wait(WAIT_S):
                return

    def _write_for_all(self, own: _Job, deadline: Deadline) -> None:
        jobs: list[_Job] = []
        while self._jobs:
            jobs.append(self._jobs.popleft())
        try:
            self._write(jobs, deadline)
        except BaseException:
            # As a signal is, it is this thread's own: the messages of the others still wait.
            jobs.remove(own)
            self._jobs.extendleft(job for job in reversed(jobs) if not job.done.is_set())
            raise

    def _write(self, jobs: Sequence[_Job], deadline: Deadline) -> None:
        try:
            self._commit(jobs, deadline)
        except (SpoolError, UnicodeError) as error:
            if len(jobs) > 1:
                # What is too much together may have room one by one.
                for job in jobs:
                    self._write([job], deadline)
                return
            if isinstance(error, UnicodeError):
                error = self._error("takes no task whose id or unique_key is no valid text")
            jobs[0].error = error
            jobs[0].done.set()

    def _commit(self, jobs: Sequence[_Job], deadline: Deadline) -> None:
        self._committed = False
        try:
            with self._transaction(self._limit_pages, deadline) as connection:
                for job in jobs:
                    job.owner = _insert(connection, job.rows)
        finally:
            for job in jobs if self._committed else ():
                job.done.set()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One write transaction, and the only one of all processes. Raises `SpoolError`."""
        with (
            self._lock,
            self._transaction(self._limit_pages + SPARE_PAGES, Deadline(PATIENCE_S)) as connection,
        ):
            yield connection

    @contextmanager
    def _transaction(self, pages: int, deadline: Deadline) -> Iterator[sqlite3.Connection]:
        with self._plain_errors():
            connection = self._opened(deadline)
            connection.execute(f"PRAGMA max_page_count = {pages}")
            _execute(connection, "BEGIN IMMEDIATE", deadline)
            try:
                yield connection
                connection.execute("COMMIT")
                self._committed = True
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                else:
                    # A signal may come between the end of a statement and the next line.
                    self._committed = not isinstance(error, sqlite3.Error)
                raise

    def forget(self) -> None:
        """Leave no trace of what was removed in the log beside the file, if nobody uses it now."""
        with self._lock, self._plain_errors():
            self._opened(Deadline(PATIENCE_S)).execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One look at the file. Raises `SpoolError`."""
        with self._lock, self._plain_errors():
            yield self._opened(Deadline(PATIENCE_S))

    def _opened(self, deadline: Deadline) -> sqlite3.Connection:
        # Who is told to move a damaged file away does so while processes have it open.
        if self._connection is not None and _identity(self.path) != self._file:
            self._disconnect()
        if self._connection is None:
            self._connection = _open(self.path, deadline)
            self._file = _identity(self.path)
        return self._connection

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            # Its own words only: a statement's parameters are somebody's arguments.
            raise self._error(_what_is_wrong(error, self._limit_mb)) from None

    def _error(self, what: str) -> SpoolError:
        return SpoolError(f"the spool {self.path} {what}")


def _what_is_wrong(error: Exception, limit_mb: float) -> str:
    said = " ".join(str(error).split())
    if "full" in said:
        return (
            f"is full: it may hold {limit_mb:g} MB (setting spool_limit), "
            "or its disk has no room left"
        )
    if "locked" in said:
        return "is busy: other processes write into it, or the disk is too slow"
    if "malformed" in said or "not a database" in said:
        return f"is damaged ({said}): move the file away, an empty one is then made"
    if isinstance(error, OSError):
        said = error.strerror or said
    return f"cannot be used ({said}): see that the state directory (NXS_STATE_DIR) can be written"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _execute(connection: sqlite3.Connection, statement: str, deadline: Deadline) -> None:
    """Execute what waits for other processes, when they are done.

    SQLite itself waits longer with each try, so that among many that write all the time one may
    never have its turn; and for some statements it does not wait at all.
    """

    def executed() -> bool:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        return True

    connection.execute("PRAGMA busy_timeout = 0")
    done = wait_until(executed, deadline.remaining(), random.uniform(*POLL_S))
    connection.execute(f"PRAGMA busy_timeout = {int(PATIENCE_S * 1000)}")
    if not done:
        raise sqlite3.OperationalError("database is locked")


def _open(path: Path, deadline: Deadline) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # Arguments of tasks may be secret: for the owner's eyes only, from the first byte. A file
        # that exists is not opened here: closing it would take SQLite's locks of this process away.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(
        path, timeout=deadline.remaining(), isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _execute(connection, "PRAGMA journal_mode = WAL", deadline)
        connection.execute("PRAGMA synchronous = FULL")
        # Arguments of tasks may be secret: what was sent is overwritten, and see `forget`.
        connection.execute("PRAGMA secure_delete = ON")
        _make_tables(connection, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection, deadline: Deadline) -> None:
    if _version(connection) == VERSION:
        return
    _execute(connection, "BEGIN IMMEDIATE", deadline)
    try:
        found = _version(connection)
        if found not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it is of version {found}, this is for {VERSION}")
        if found == 0:
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _insert(connection: sqlite3.Connection, rows: Sequence[Kept]) -> str:
    """Returns the id of the task that has the unique key of the first row."""
    key = rows[0].unique_key
    # What was sent once may have taken the key, whatever another row says.
    if key and not rows[0].producer:
        found = connection.execute(
            "SELECT task_id FROM kept WHERE broker = ? AND unique_key = ? AND refused = ''",
            (rows[0].broker, key),
        ).fetchone()
        if found is not None:
            return str(found[0])
    connection.executemany(
        "INSERT INTO kept (broker, at, why, list, message, task_id, unique_key, producer, number)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                row.broker,
                row.at,
                row.why,
                row.list,
                row.message.encode("utf-8", "surrogateescape"),
                row.task_id,
                row.unique_key,
                row.producer,
                row.number,
            )
            for row in rows
        ),
    )
    return rows[0].task_id
