"""The tables, and with them what a row may hold: reading and writing validate against them.

Times are seconds since 1970, UTC. `evidence` and `candidates` are JSON. A table keeps its own
metadata, so that an application that uses SQLModel too does not find NXS among its tables.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

from pydantic import field_validator
from sqlalchemy import JSON, BigInteger, Index, Integer, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Characters. PostgreSQL refuses an index entry of about 2700 bytes.
KEY_LENGTH = 500


def key() -> Any:
    """Text that an index is on, alone or with others."""
    return Field(max_length=KEY_LENGTH)


def _indexed(*columns: str) -> tuple[Any, ...]:
    """An event is kept once in a fleet; rows of a fleet are found by time, and by each column."""
    by_column = (Index(None, "fleet", column, "at") for column in columns)
    return (UniqueConstraint("fleet", "event_id"), Index(None, "fleet", "at"), *by_column)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value


class Row(SQLModel, registry=registry(metadata=METADATA)):
    """What all tables have."""

    #: SQLite counts by itself only in a column that is exactly INTEGER.
    id: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite")
    )
    fleet: str = key()
    event_id: str = key()
    at: float

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse what one of the databases would refuse, or give back as something else."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("is not a finite number")
        if isinstance(value, str):
            value.encode()  # raises ValueError for half a surrogate pair
            if "\0" in value:
                raise ValueError("holds a NUL character")
        return value


class TransitionRow(Row, table=True):
    """A `TransitionRecord`."""

    __tablename__ = "nxs_transitions"
    __table_args__: ClassVar[Any] = _indexed("instance")

    instance: str = key()
    epoch: int = Field(ge=-(2**63), lt=2**63, sa_type=BigInteger)
    source: str
    target: str
    event: str
    reason: str
    evidence: dict[str, Any] = Field(sa_type=JSON)

    _decode = field_validator("evidence", mode="before")(_decoded)


class PlacementRow(Row, table=True):
    """A `PlacementRecord`."""

    __tablename__ = "nxs_placements"
    __table_args__: ClassVar[Any] = _indexed("task_id", "instance")

    task_id: str = key()
    task: str
    instance: str | None = key()
    score: float | None
    reason: str
    candidates: tuple[dict[str, Any], ...] = Field(sa_type=JSON)

    _decode = field_validator("candidates", mode="before")(_decoded)


class LossRow(Row, table=True):
    """A `LossRecord`."""

    __tablename__ = "nxs_losses"
    __table_args__: ClassVar[Any] = _indexed("task_id", "instance")

    task_id: str = key()
    task: str
    instance: str = key()
    epoch: int = Field(ge=-(2**63), lt=2**63, sa_type=BigInteger)
    became: str


class TickRow(Row, table=True):
    """A `TickRecord`."""

    __tablename__ = "nxs_ticks"
    __table_args__: ClassVar[Any] = _indexed("job")

    job: str = key()
    lateness_s: float
    took_s: float
    node: str
