"""A cable between clients and a server that can lose answers, and can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

CHUNK = 65536


class Cable:
    """Listens on a port of its own, and passes on what comes to the server and back."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}{parts.path}"
        self._lost: bytes | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, about: bytes = b"") -> None:
        """What the server says from now on arrives nowhere, if it holds this text."""
        self._lost = about

    def cut(self) -> None:
        """Close every connection; new ones are whole again."""
        for end in list(self._open):
            _close(end)
        self._open.clear()
        self._lost = None

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open |= {client, server}
                for ends, answers in (((client, server), False), ((server, client), True)):
                    threading.Thread(target=self._pass, args=(*ends, answers), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                lost = answers and self._lost is not None and self._lost in data
                if not lost:
                    target.sendall(data)
        for end in (source, target):
            self._open.discard(end)
            _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def a_cable(server_url: str) -> Iterator[Cable]:
    cable = Cable(server_url)
    try:
        yield cable
    finally:
        cable.close()
