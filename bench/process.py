"""A real `celery worker` for a bench: started, and ended by who has started it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.catalog import BenchError

ROOT = Path(__file__).resolve().parents[1]
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
#: A worker has so long to end, s.
ENDING_S = 60.0
#: Characters of its log that are shown.
TAIL = 500
#: Exit codes of one that was told to end.
TOLD_TO = (0, -15)


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker's main process, in a group of its own with all its children."""

    name: str
    process: subprocess.Popen[bytes]
    log: IO[str]

    def end(self) -> None:
        """Have it end as a worker does. Raises `BenchError` if it fails at that."""
        self.process.terminate()
        if self.process.wait(ENDING_S) not in TOLD_TO:
            raise BenchError(f"the worker {self.name} failed: {self._tail()}")

    def kill(self) -> None:
        """End it at once, with its children. Raises `BenchError` if it had ended before."""
        running = self.process.poll() is None
        os.killpg(self.process.pid, 9)
        self.process.wait(ENDING_S)
        if not running:
            raise BenchError(f"the worker {self.name} ended by itself: {self._tail()}")

    def _tail(self) -> str:
        self.log.seek(0)
        return self.log.read()[-TAIL:]


@contextmanager
def started(
    app: str, name: str, slots: int, url: str, *options: str, fleet: bool, **env: str
) -> Iterator[WorkerProcess]:
    """A worker of an app of this package on a server; with the line of NXS if `fleet`."""
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryFile("w+") as log:
        known = {"BENCH_BROKER": url, "PYTHONPATH": str(ROOT), "NXS_STATE_DIR": state, **env}
        if fleet:
            known["BENCH_FLEET"] = "1"
        argv = ["celery", "-A", app, "worker", "-n", name, "-c", str(slots), *options, *QUIET]
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            cwd=ROOT,
            env={**os.environ, **known},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        yield WorkerProcess(name, process, log)
