"""What the spool hands out to be sent: one batch at a time, to one process at a time.

A batch is noted in the file, with the name of its write, before it is sent. So if its sender dies,
whoever comes next finds a write of unknown end, and asks the broker: it was accepted, or it is void
and its rows are sent anew. The same holds for a row that was sent before it came here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from nxs_tasks.clock import Clock
from nxs_tasks.store.publisher import REMEMBERED_S
from nxs_tasks.submission.spool import COLUMNS, Kept, Spool, from_row

#: Who drains and has not been heard of for so long has ended, s.
LEASE_S = 15.0
#: In one batch.
MOST_ROWS = 500
MOST_BYTES = 1 << 20
#: The broker knows a write for a while. After that nobody can tell whether it was accepted, s.
DECIDABLE_S = REMEMBERED_S - 3600
UNDECIDABLE = (
    "it is not known whether the broker has it: it was sent once without an answer, so long ago "
    "that the broker has forgotten"
)

WAITING = "broker = ? AND refused = ''"
#: Rows that a batch of a list takes in.
PLAIN = "broker = ? AND list = ? AND refused = '' AND producer = ''"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Messages for one list, first to be taken first, and the name of their write (number 1)."""

    producer: str
    list: str
    first: int
    last: int
    messages: tuple[str, ...]
    unique_key: str = ""
    task_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A write of unknown end. `batch` if it is a batch of the spool, else its rows name it."""

    producer: str
    number: int
    batch: bool


class Batches:
    """What waits for one broker. `holder` names this process, and is unique."""

    def __init__(self, spool: Spool, broker: str, holder: str, clock: Clock) -> None:
        self._spool = spool
        self._broker = broker
        self._holder = holder
        self._clock = clock

    def waiting(self) -> int:
        """How many messages wait. Raises `SpoolError`, as all here do."""
        with self._spool.reading() as connection:
            sql = f"SELECT count(*) FROM kept WHERE {WAITING}"
            return int(connection.execute(sql, (self._broker,)).fetchone()[0])

    def acquire(self) -> bool:
        """Be the one who drains, for `LEASE_S` from now on; False if another is."""
        with self._spool.writing() as connection:
            return self._acquired(connection)

    def _acquired(self, connection: sqlite3.Connection) -> bool:
        now = self._clock.now()
        found = connection.execute(
            "SELECT holder, until FROM drainer WHERE broker = ?", (self._broker,)
        ).fetchone()
        # A clock that was set back must not make a lease last for ever.
        if found and found[0] != self._holder and now < found[1] <= now + LEASE_S:
            return False
        connection.execute(
            "INSERT OR REPLACE INTO drainer VALUES (?, ?, ?)",
            (self._broker, self._holder, now + LEASE_S),
        )
        return True

    def resign(self) -> None:
        """Let another drain at once."""
        with self._spool.writing() as connection:
            connection.execute(
                "DELETE FROM drainer WHERE broker = ? AND holder = ?", (self._broker, self._holder)
            )

    def doubt(self) -> Doubt | None:
        """A write whose end must be known before anything else is sent."""
        while True:
            with self._spool.writing() as connection:
                if not self._acquired(connection):
                    return None
                found = self._found_doubt(connection)
                if found is None:
                    return None
                doubt, at = found
                if self._clock.now() - at < DECIDABLE_S:
                    return doubt
                self._give_up(connection, doubt)

    def _found_doubt(self, connection: sqlite3.Connection) -> tuple[Doubt, float] | None:
        batch = connection.execute(
            "SELECT producer, at FROM sending WHERE broker = ?", (self._broker,)
        ).fetchone()
        if batch is not None:
            return Doubt(producer=batch[0], number=1, batch=True), batch[1]
        row = connection.execute(
            f"SELECT producer, number, at FROM kept WHERE {WAITING} ORDER BY id LIMIT 1",
            (self._broker,),
        ).fetchone()
        if row is None or not row[0]:
            return None
        return Doubt(producer=row[0], number=row[1], batch=False), row[2]

    def _give_up(self, connection: sqlite3.Connection, doubt: Doubt) -> None:
        where, values = self._rows_of(connection, doubt)
        connection.execute(f"UPDATE kept SET refused = ? WHERE {where}", (UNDECIDABLE, *values))
        self._forget_sending(connection, doubt.producer)

    def settle(self, doubt: Doubt, *, accepted: bool) -> int:
        """Drop the rows of a doubt if they were accepted (returns how many), else keep them."""
        with self._spool.writing() as connection:
            if not self._acquired(connection):
                return 0
            where, values = self._rows_of(connection, doubt)
            if accepted:
                done = connection.execute(f"DELETE FROM kept WHERE {where}", values).rowcount
            else:
                done = 0
                connection.execute(
                    f"UPDATE kept SET producer = '', number = 0 WHERE {where}", values
                )
            self._forget_sending(connection, doubt.producer)
            return done

    def _rows_of(
        self, connection: sqlite3.Connection, doubt: Doubt
    ) -> tuple[str, tuple[object, ...]]:
        if not doubt.batch:
            where = "broker = ? AND producer = ? AND number = ? AND refused = ''"
            return where, (self._broker, doubt.producer, doubt.number)
        found = connection.execute(
            "SELECT list, first, last FROM sending WHERE broker = ? AND producer = ?",
            (self._broker, doubt.producer),
        ).fetchone()
        name, first, last = found if found is not None else ("", 0, -1)
        return f"{PLAIN} AND id BETWEEN ? AND ?", (self._broker, name, first, last)

    def take(self, most_rows: int = MOST_ROWS) -> Batch | None:
        """The next batch, noted as being sent; None if nothing waits or another drains."""
        with self._spool.writing() as connection:
            if not self._acquired(connection):
                return None
            rows = self._next_rows(connection, most_rows)
            if not rows:
                return None
            batch = Batch(
                producer=uuid4().hex,
                list=rows[0].list,
                first=rows[0].id,
                last=rows[-1].id,
                messages=tuple(row.message for row in rows),
                unique_key=rows[0].unique_key,
                task_id=rows[0].task_id,
            )
            connection.execute(
                "INSERT INTO sending VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self._broker,
                    batch.producer,
                    self._clock.now(),
                    batch.list,
                    batch.first,
                    batch.last,
                ),
            )
            return batch

    def _next_rows(self, connection: sqlite3.Connection, most: int) -> list[Kept]:
        """The oldest row, and what follows it in its list; one with a unique key goes alone."""
        oldest = connection.execute(
            f"SELECT {COLUMNS} FROM kept WHERE {WAITING} ORDER BY id LIMIT 1", (self._broker,)
        ).fetchone()
        if oldest is None or from_row(oldest).producer:
            return []
        rows = [from_row(oldest)]
        found = connection.execute(
            f"SELECT {COLUMNS} FROM kept WHERE broker = ? AND list = ? AND refused = ''"
            " AND id > ? ORDER BY id LIMIT ?",
            (self._broker, rows[0].list, rows[0].id, most - 1),
        )
        size = len(rows[0].message)
        for row in map(from_row, found):
            size += len(row.message)
            if size > MOST_BYTES or row.producer or row.unique_key or rows[0].unique_key:
                break
            rows.append(row)
        return rows

    def sent(self, batch: Batch) -> int:
        """Drop what was accepted; returns how many. Does nothing if another has taken over."""
        with self._spool.writing() as connection:
            if not self._forget_sending(connection, batch.producer):
                return 0
            return connection.execute(
                f"DELETE FROM kept WHERE {PLAIN} AND id BETWEEN ? AND ?",
                (self._broker, batch.list, batch.first, batch.last),
            ).rowcount

    def refuse(self, batch: Batch, reason: str) -> None:
        """Put the one row of a batch aside, for a person to see."""
        with self._spool.writing() as connection:
            if self._forget_sending(connection, batch.producer):
                connection.execute(
                    "UPDATE kept SET refused = ? WHERE id = ?", (reason, batch.first)
                )

    def _forget_sending(self, connection: sqlite3.Connection, producer: str) -> bool:
        gone = connection.execute(
            "DELETE FROM sending WHERE broker = ? AND producer = ?", (self._broker, producer)
        )
        return gone.rowcount > 0


def rows(spool: Spool, most: int) -> list[Kept]:
    """The oldest rows for any broker, also those that were refused. Raises `SpoolError`."""
    with spool.reading() as connection:
        found = connection.execute(f"SELECT {COLUMNS} FROM kept ORDER BY id LIMIT ?", (most,))
        return [from_row(row) for row in found]


def counts(spool: Spool) -> dict[tuple[str, bool], int]:
    """How many messages there are, by broker and whether it refused them. Raises `SpoolError`."""
    sql = "SELECT broker, refused != '', count(*) FROM kept GROUP BY 1, 2 ORDER BY 1, 2"
    with spool.reading() as connection:
        return {(row[0], bool(row[1])): row[2] for row in connection.execute(sql)}


def readdress(spool: Spool, before: str, broker: str) -> int:
    """Have what waits for one broker wait for another address of it; returns how many."""
    with spool.writing() as connection:
        connection.execute("DELETE FROM sending WHERE broker = ?", (broker,))
        connection.execute("UPDATE sending SET broker = ? WHERE broker = ?", (broker, before))
        sql = "UPDATE kept SET broker = ? WHERE broker = ?"
        return connection.execute(sql, (broker, before)).rowcount


def drop(spool: Spool, ids: Sequence[int]) -> int:
    """Remove rows for good; returns how many. Raises `SpoolError`."""
    with spool.writing() as connection:
        places = ", ".join("?" for _ in ids)
        return connection.execute(f"DELETE FROM kept WHERE id IN ({places})", ids).rowcount


def retry(spool: Spool, broker: str, *, unsure: bool = False) -> int:
    """Have what this broker refused be sent once more, as if it came now; returns how many.

    With `unsure` it is what the broker may have, and which then may run twice.
    """
    where = f"broker = ? AND refused != '' AND refused {'=' if unsure else '!='} ?"
    values = (broker, UNDECIDABLE)
    with spool.writing() as connection:
        names = "broker, at, why, list, message, task_id, unique_key"
        found = connection.execute(
            f"INSERT INTO kept ({names}) SELECT {names} FROM kept WHERE {where} ORDER BY id", values
        ).rowcount
        connection.execute(f"DELETE FROM kept WHERE {where}", values)
        return found
