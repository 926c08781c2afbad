"""Between the records of the model and the rows of the tables, naming what does not fit."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import ValidationError

from nxs_tasks.errors import HistoryError, RecordRefused
from nxs_tasks.history.tables import LossRow, PlacementRow, Row, TickRow, TransitionRow
from nxs_tasks.model.record import (
    LossRecord,
    PlacementRecord,
    Record,
    TickRecord,
    TransitionRecord,
)

R = TypeVar("R", TransitionRecord, PlacementRecord, LossRecord, TickRecord)

ROWS: dict[type[Record], type[Row]] = {
    TransitionRecord: TransitionRow,
    PlacementRecord: PlacementRow,
    LossRecord: LossRow,
    TickRecord: TickRow,
}
_JSON = frozenset({"evidence", "candidates"})


def to_values(record: Record, fleet: str) -> dict[str, Any]:
    """Return the columns of a record of a fleet, JSON as text.

    Raises `RecordRefused` naming the `event_id` if a database could not give back the same.
    """
    row = ROWS[type(record)]
    names = [f.name for f in fields(record)]
    try:
        values = {name: getattr(record, name) for name in names}
        checked = row.model_validate({**values, "fleet": fleet})
        return {name: _column(name, getattr(checked, name)) for name in (*names, "fleet")}
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordRefused(
            f"record {record.event_id!r} cannot be kept in {row.__tablename__}: {_why(error)}"
        ) from None


def to_record(kind: type[R], row: Row) -> R:
    """Return the record of a row that was read.

    Raises `HistoryError` naming table and id if the row is not one that `to_values` makes.
    """
    names = [f.name for f in fields(kind)]
    try:
        values = {name: getattr(row, name) for name in names}
        checked = type(row).model_validate({**values, "fleet": row.fleet})
        return kind(**{name: getattr(checked, name) for name in names})
    except (TypeError, ValueError, RecursionError) as error:
        raise HistoryError(
            f"{row.__tablename__} id {row.id} cannot be read back: {_why(error)}; "
            "repair or delete that row"
        ) from None


def _column(name: str, value: Any) -> Any:
    return json.dumps(value, allow_nan=False) if name in _JSON else value


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
