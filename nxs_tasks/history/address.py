"""Where the history is: what the engine is given, and what a message may show of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from nxs_tasks.errors import HistoryError

SETTING = "history_url (NXS_HISTORY_URL)"
FILE_NAME = "history.db"

_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
_SHAPES = "sqlite:////path/to/file or postgresql://user:password@host/database"
_FILE_ADVICE = f"free, repair or move away that file (an empty one is then made), or set {SETTING}"
_SERVER_ADVICE = f"see that the server runs and lets this user in, or correct {SETTING}"
#: Parameters of a PostgreSQL URL that may be secret.
_SECRET_PARAMETERS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """Of one database. Print `shown`, never `url`."""

    url: URL = field(repr=False)  # may hold a password
    shown: str  # the file, or user, host and database of the server
    path: Path | None  # the SQLite file; None = a PostgreSQL server

    @property
    def advice(self) -> str:
        """What to do when the database cannot serve."""
        return _SERVER_ADVICE if self.path is None else _FILE_ADVICE

    def scrub(self, text: str) -> str:
        """Return `text` with every secret of this address replaced."""
        secrets = [self.url.password, *(_parameter(self.url, n) for n in _SECRET_PARAMETERS)]
        for secret in filter(None, secrets):
            text = text.replace(str(secret), "***")
        return text


def in_directory(state_path: Path) -> Address:
    """Address the SQLite file that is used when no URL is set."""
    return _sqlite(URL.create("sqlite", database=str(state_path / FILE_NAME)))


def parse(text: str) -> Address:
    """Read a database URL.

    Raises `HistoryError` if it is malformed or names something else than SQLite or PostgreSQL.
    """
    try:
        url = make_url(text)
        plain = url.drivername in _SQLITE or _host_follows_last_at(text, url)
    except (ArgumentError, ValueError):
        plain = False
    if not plain:  # nor is the cause shown: it quotes what it could not read
        raise HistoryError(
            f"{SETTING}: not a database URL; use {_SHAPES}, and write the signs '@', '/', ':' "
            "and '%' in a password as %40, %2F, %3A and %25"
        )
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername in _POSTGRESQL:
        return _postgresql(url)
    raise HistoryError(f"{SETTING}: {url.drivername!r} is not supported; use {_SHAPES}")


def _host_follows_last_at(text: str, url: URL) -> bool:
    # Else, as in `user:p@ss@host`, half the password would pass for the host, and be shown.
    before, _, after = text.rpartition("@")
    return not before or make_url(f"postgresql://{after}")[3:] == url[3:]


def _sqlite(url: URL) -> Address:
    name = url.database or ""
    if name in ("", ":memory:") or url.query:
        raise HistoryError(
            f"{SETTING}: a SQLite history is one file without parameters, because several "
            "processes open it; use sqlite:////path/to/file"
        )
    path = Path(name).absolute()
    return Address(URL.create("sqlite", database=str(path)), str(path), path)


def _postgresql(url: URL) -> Address:
    where = {name: _parameter(url, name) for name in ("host", "port")}
    shown = URL.create(
        "postgresql",
        username=url.username or _parameter(url, "user"),
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: value for name, value in where.items() if value},
    )
    return Address(url.set(drivername="postgresql+psycopg"), shown.render_as_string(), None)


def _parameter(url: URL, name: str) -> str | None:
    value = url.query.get(name)
    return value if value is None or isinstance(value, str) else ",".join(value)
