"""Servers that are no help: one that accepts and never answers, one that does not even accept, and
a cable between a client and a real server that can be cut at the worst moment.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def _url(listening: socket.socket) -> str:
    return f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def ready(of: socket.socket | int, event: int = select.POLLIN, wait_ms: int = 0) -> bool:
    """Whether something is there to read (or room to write), within so many ms.

    By poll: select takes no descriptor above 1023, and many tests have many.
    """
    poll = select.poll()
    poll.register(of, event)
    return bool(poll.poll(wait_ms))


def either(*sockets: socket.socket) -> list[socket.socket]:
    """Wait until one of them has something to read; those that have."""
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN)
    found = {number for number, _ in poll.poll()}
    return [one for one in sockets if one.fileno() in found]


@contextmanager
def silent_server() -> Iterator[tuple[str, Callable[[], int]]]:
    """Accepts connections and says nothing; its address, and how many there were until now."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening:
        accepted: list[socket.socket] = []

        def count() -> int:
            while ready(listening):
                accepted.append(listening.accept()[0])
            return len(accepted)

        try:
            yield _url(listening), count
        finally:
            for connection in accepted:
                connection.close()


@contextmanager
def unreachable_server() -> Iterator[str]:
    """Does not accept: its backlog is full, so a further SYN is dropped, as by a firewall."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting: list[socket.socket] = []
        try:
            while True:
                client = socket.socket()
                waiting.append(client)
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(listening.getsockname())
                if not ready(client, select.POLLOUT, 200):
                    break
            yield _url(listening)
        finally:
            for client in waiting:
                client.close()


class LossyCable:
    """Passes bytes to a real server. With `lose_answers` it cuts instead of passing an answer on.

    So the server has done what it was told, and the client never hears of it.
    """

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._over = False
        self.url = _url(self._listening)
        #: Cut so many connections at their next answer to a command that holds this.
        self.lose_answers = 0
        self.to = b""
        #: Cut each connection that sends a command of this, before it gets there.
        self.refuse = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over = True
        self._listening.close()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        asked = b""
        with client, server, suppress(OSError):
            while True:
                for one in either(client, server):
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    if one is client:
                        asked = data
                        if self.refuse and self.refuse in data:
                            return
                        server.sendall(data)
                    elif self.lose_answers and self.to in asked:
                        self.lose_answers -= 1
                        return
                    else:
                        client.sendall(data)
