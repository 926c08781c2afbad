"""How both databases are spoken to: connections, write transactions, errors in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from nxs_tasks.errors import HistoryError
from nxs_tasks.history.address import Address

#: Longest wait (s) for another process that opens or writes.
LOCK_WAIT_S = 30
_CONNECT_WAIT_S = 5
_ADVISORY_LOCK = int.from_bytes(b"nxs.hist", "big")
_REASON_LENGTH = 400


def make_engine(address: Address) -> Engine:
    """Prepare the engine; connects to nothing yet.

    JSON columns pass through as text: `rows` decodes them, where table and id are known.

    Raises `HistoryError` if the driver is not installed.
    """
    try:
        return create_engine(
            address.url,
            # One connection an operation: it survives a fork of the worker and a restart of the
            # server, is safe in threads, and a fleet holds no idle connections.
            poolclass=NullPool,
            connect_args=_connect_args(address),
            json_serializer=_as_is,
            json_deserializer=_as_is,
        )
    except ImportError:
        raise HistoryError(
            f"history {address.shown}: the PostgreSQL driver is missing; "
            "install nxs-tasks[postgres]"
        ) from None


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, and the only one of all processes: commits, or rolls back.

    One at a time keeps two writers of the same events from blocking each other crosswise, and two
    openers from migrating at once.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            # Python would begin only before the first INSERT: DDL that came earlier would stay.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        yield connection


@contextmanager
def plain_errors(address: Address) -> Iterator[None]:
    """Turn what SQLAlchemy, its drivers and Alembic raise into `HistoryError` without secrets."""
    try:
        yield
    except (SQLAlchemyError, CommandError, UnicodeError) as error:
        # Statement and parameters are left out: they hold data of tasks.
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        reason = address.scrub(text)[:_REASON_LENGTH]
        raise HistoryError(f"history {address.shown}: {reason}; {address.advice}") from None


def _connect_args(address: Address) -> dict[str, Any]:
    if address.path is not None:
        return {"timeout": LOCK_WAIT_S}
    defaults = {
        "application_name": "nxs-history",
        "connect_timeout": _CONNECT_WAIT_S,
        # Prepared statements do not survive a pooler such as PgBouncer between us and the server.
        "prepare_threshold": None,
    }
    return {name: value for name, value in defaults.items() if name not in address.url.query}


def _as_is(text: Any) -> Any:
    return text
