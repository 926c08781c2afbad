"""The tables, and with them what a row may hold: reading and writing validate against them.

Times are seconds since 1970, UTC. `evidence` and `candidates` are JSON. A table keeps its own
metadata, so that an application that uses SQLModel too does not find NXS among its tables.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, StringConstraints
from sqlalchemy import JSON, BigInteger, Index, Integer, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which PostgreSQL cannot store")
    text.encode()  # raises ValueError for half a surrogate pair, which is no character
    return text


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value


Text = Annotated[str, AfterValidator(_storable)]
#: Indexed text: PostgreSQL refuses an index entry of about 2700 bytes.
Key = Annotated[Text, StringConstraints(max_length=500)]
#: NaN would come back from SQLite as NULL, that is as "unknown".
Finite = Annotated[float, AllowInfNan(False)]
Object = Annotated[dict[str, Any], BeforeValidator(_decoded)]
Objects = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_decoded)]


class Row(SQLModel, registry=registry(metadata=METADATA)):
    """What all tables have."""

    #: SQLite counts by itself only in a column that is exactly INTEGER.
    id: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite")
    )
    event_id: Key = Field(unique=True)
    at: Finite = Field(index=True)


class TransitionRow(Row, table=True):
    """A `TransitionRecord`."""

    __tablename__ = "nxs_transitions"
    __table_args__: ClassVar[Any] = (Index(None, "instance", "at"),)

    instance: Key
    epoch: int = Field(ge=-(2**63), lt=2**63, sa_type=BigInteger)
    source: Text
    target: Text
    event: Text
    reason: Text
    evidence: Object = Field(sa_type=JSON)


class PlacementRow(Row, table=True):
    """A `PlacementRecord`."""

    __tablename__ = "nxs_placements"
    __table_args__: ClassVar[Any] = (Index(None, "task_id", "at"), Index(None, "instance", "at"))

    task_id: Key
    task: Text
    instance: Key | None
    score: Finite | None
    reason: Text
    candidates: Objects = Field(sa_type=JSON)


class TickRow(Row, table=True):
    """A `TickRecord`."""

    __tablename__ = "nxs_ticks"
    __table_args__: ClassVar[Any] = (Index(None, "job", "at"),)

    job: Key
    lateness_s: Finite
    took_s: Finite
    node: Text
