"""Open the history: find it, lock it, bring its schema up."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sqlalchemy.engine import Connection, Engine

from nxs_tasks.clock import Clock, wait_until
from nxs_tasks.errors import HistoryError, StateDirError
from nxs_tasks.history import schema
from nxs_tasks.history.address import SETTING, Address, in_directory, parse
from nxs_tasks.history.engine import LOCK_WAIT_S, make_engine, plain_errors, writing
from nxs_tasks.history.history import History

log = logging.getLogger(__name__)


def open_history(url: str, state_path: Path, clock: Clock, fleet: str = "default") -> History:
    """Open the database at `url`, or `history.db` in `state_path` if `url` is empty.

    Creates the directory (mode 0700, only for the empty `url`), the file and the tables as
    needed; any number of processes may do so at once. `clock` measures how long a migration took.
    The history sees and prunes the records of `fleet` only.

    Raises `StateDirError` if the state directory cannot be written, `HistoryTooNew` if a newer
    NXS made the database, and `HistoryError` for all else that keeps it from opening.
    """
    address = parse(url) if url else in_directory(state_path)
    engine = make_engine(address)
    if address.path is None:
        _bring_up(engine, address, clock)
    else:
        lock = _lock_file(address.path) if url else _lock_file_in(state_path, address.path)
        with _held(lock, address):
            _bring_up(engine, address, clock)
    return History(engine, address, fleet)


def _bring_up(engine: Engine, address: Address, clock: Clock) -> None:
    start = clock.monotonic()
    with plain_errors(address):
        with engine.connect() as connection:
            current = schema.is_current(connection, address)
            if address.path is not None:
                _use_wal(connection)
        if current:
            return
        with writing(engine) as connection:
            schema.upgrade(connection)
    log.info("history %s: schema ready in %.2f s", address.shown, clock.monotonic() - start)


def _use_wal(connection: Connection) -> None:
    """Let readers and the writer work side by side; the file remembers it."""
    if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _lock_file_in(state_path: Path, path: Path) -> TextIO:
    try:
        state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open_lock(path)
    except OSError as error:
        raise StateDirError(
            f"state directory {state_path} cannot be written ({error.strerror}); set state_dir "
            "(NXS_STATE_DIR) to a directory that this user may create and write"
        ) from error


def _lock_file(path: Path) -> TextIO:
    try:
        return _open_lock(path)
    except OSError as error:
        raise HistoryError(
            f"history {path}: its directory cannot be written ({error.strerror}); "
            f"create it, or correct {SETTING}"
        ) from error


def _open_lock(path: Path) -> TextIO:
    return open(f"{path}.lock", "a", encoding="utf-8")


@contextmanager
def _held(lock: TextIO, address: Address) -> Iterator[None]:
    # Two processes that switch a new SQLite file to WAL at once do not wait for each other: one
    # may be told "database is locked" at once, whatever its timeout. So openers queue here.
    with lock:
        if not wait_until(lambda: _try_lock(lock), LOCK_WAIT_S, poll_s=0.01):
            raise HistoryError(
                f"history {address.shown}: another process has held {lock.name} "
                f"for {LOCK_WAIT_S} s while opening; end it, or try again"
            )
        yield


def _try_lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
