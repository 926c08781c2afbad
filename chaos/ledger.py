"""The ledger: who wrote what when, one line each, in one write(2). Knows nothing of the broker.

A line is `KIND TASK ATTEMPT HOLDER PID MONOTONIC WALL NONCE;`. The monotonic clock is that of the
machine, so lines of different processes can be set in order. A process may be killed within its
write: what it has written of a line then stands before the next line, and is passed over.

Imports nothing of NXS, because the tasks of plain Celery write it too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: A task begins; it has done its work; it ends by a retry.
START, END, RETRIED = "S", "E", "R"
#: A submission is tried; it was accepted; it was refused (NONCE is the error's name).
TRIED, ACCEPTED, REFUSED = "T", "A", "X"

_LINE = re.compile(r"([A-Z]) (\S+) (\d+) (\S+) (\d+) (\d+\.\d+) (\d+\.\d+) (\S+);$")


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `at` is monotonic, `wall` seconds since 1970."""

    kind: str
    task: str
    attempt: int
    holder: str  # one life of one worker
    pid: int
    at: float
    wall: float
    nonce: str  # one execution


class Ledger:
    """One file, to which many processes append."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._fd: int | None = None

    def write(self, kind: str, task: str, attempt: int, holder: str, nonce: str) -> None:
        """Append one line."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        at, wall = time.monotonic(), time.time()  # noqa: TID251 - see the head of this file
        text = f"{kind} {task} {attempt} {holder} {os.getpid()} {at:.6f} {wall:.6f} {nonce};\n"
        os.write(self._fd, text.encode())


class Tail:
    """Reads a ledger while it grows: each call gives the lines that came since the last."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._offset = 0
        self._rest = b""

    def lines(self) -> Iterator[Line]:
        """The new lines."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        for raw in complete:
            line = parse(raw.decode(errors="replace"))
            if line is not None:
                yield line


def parse(text: str) -> Line | None:
    """One line, also behind a torn one; None for what is none."""
    found = _LINE.search(text)
    if found is None:
        return None
    kind, task, attempt, holder, pid, at, wall, nonce = found.groups()
    return Line(kind, task, int(attempt), holder, int(pid), float(at), float(wall), nonce)


def read(path: Path | str) -> list[Line]:
    """All lines of a ledger; none if there is no such file."""
    return list(Tail(path).lines())
