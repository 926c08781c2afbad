"""The history itself: add, look back, forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.sql import ColumnElement
from sqlmodel import Session, col, delete, select

from nxs_tasks.history.address import Address
from nxs_tasks.history.engine import plain_errors, writing
from nxs_tasks.history.rows import ROWS, R, to_record, to_values
from nxs_tasks.history.tables import LossRow, PlacementRow, Row, TickRow, TransitionRow
from nxs_tasks.model.record import (
    LossRecord,
    PlacementRecord,
    Record,
    TickRecord,
    TransitionRecord,
)

_DAY_S = 86_400


class History:
    """What happened in one fleet; several may share a database.

    Made by `open_history`; safe in threads and after a fork.

    Every method raises `HistoryError`, naming the database, if that cannot serve.
    """

    def __init__(self, engine: Engine, address: Address, fleet: str) -> None:
        self._fleet = fleet
        self._engine = engine
        self._address = address

    def __repr__(self) -> str:
        return f"History({self._address.shown!r})"

    def add(self, records: Sequence[Record]) -> int:
        """Keep `records`, all or none, and return how many were not there before.

        A record whose `event_id` is there already is left as it is. Raises `RecordRefused` naming
        the `event_id` of a record that cannot be kept.
        """
        batches: dict[type[Row], list[dict[str, Any]]] = {}
        for record in records:
            batches.setdefault(ROWS[type(record)], []).append(to_values(record, self._fleet))
        if not batches:
            return 0
        with plain_errors(self._address), writing(self._engine) as connection:
            return sum(_insert(connection, row, values) for row, values in batches.items())

    def transitions(self, instance: str | None = None, limit: int = 50) -> list[TransitionRecord]:
        """State changes (of one instance), newest first."""
        wanted = [] if instance is None else [col(TransitionRow.instance) == instance]
        return self._newest(TransitionRecord, wanted, limit)

    def placements(
        self, task_id: str | None = None, instance: str | None = None, limit: int = 50
    ) -> list[PlacementRecord]:
        """Placements (of one task, to one instance), newest first."""
        wanted = [] if task_id is None else [col(PlacementRow.task_id) == task_id]
        if instance is not None:
            wanted.append(col(PlacementRow.instance) == instance)
        return self._newest(PlacementRecord, wanted, limit)

    def losses(self, task_id: str | None = None, limit: int = 50) -> list[LossRecord]:
        """Holders that died with a task (with one task), newest first."""
        wanted = [] if task_id is None else [col(LossRow.task_id) == task_id]
        return self._newest(LossRecord, wanted, limit)

    def ticks(
        self, job: str | None = None, since: float | None = None, limit: int = 1000
    ) -> list[TickRecord]:
        """Runs of control jobs (of one job, started at `since` (wall time, s) or later)."""
        wanted = [] if job is None else [col(TickRow.job) == job]
        if since is not None:
            wanted.append(col(TickRow.at) >= since)
        return self._newest(TickRecord, wanted, limit)

    def prune(self, now: float, days: int) -> int:
        """Delete what is more than `days` days older than `now` (wall time, s); return how many."""
        before = now - days * _DAY_S
        with plain_errors(self._address), writing(self._engine) as connection:
            return sum(
                connection.execute(
                    delete(row).where(col(row.fleet) == self._fleet, col(row.at) < before)
                ).rowcount
                for row in ROWS.values()
            )

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _newest(self, kind: type[R], wanted: list[ColumnElement[bool]], limit: int) -> list[R]:
        if limit < 0:
            raise ValueError(f"limit={limit}: must not be negative")
        row = ROWS[kind]
        # Events of the same instant: the one that was added last is the newer one.
        newest_first = col(row.at).desc(), col(row.id).desc()
        mine = col(row.fleet) == self._fleet
        query = select(row).where(mine, *wanted).order_by(*newest_first).limit(limit)
        with plain_errors(self._address), Session(self._engine) as session:
            rows = session.exec(query).all()
        return [to_record(kind, found) for found in rows]


def _insert(connection: Connection, row: type[Row], values: list[dict[str, Any]]) -> int:
    known = ["fleet", "event_id"]
    statement: Insert
    if connection.dialect.name == "sqlite":
        statement = sqlite.insert(row).on_conflict_do_nothing(index_elements=known)
    else:
        statement = postgresql.insert(row).on_conflict_do_nothing(index_elements=known)
    # Without the option the count of a batch is not kept for every driver.
    result: CursorResult[Any] = connection.execute(
        statement, values, execution_options={"preserve_rowcount": True}
    )
    return result.rowcount
