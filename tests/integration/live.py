"""Real processes for tests: workers, control workers, beats, Flower, command lines.

Every process is started here, knows its log, and is ended by its pid when the test is over.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from nxs_tasks.clock import wait_until
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from tests.conftest import Server, new_store

#: The app with the line, and the same without it.
APP = "tests.integration.shop_fleet"
STOCK_APP = "tests.integration.shop"
ROOT = Path(__file__).resolve().parents[2]
#: Longest wait for a process of ours to do what it will do. A deadline, not an expectation.
PATIENCE_S = 60.0


class Process:
    """One process, the head of its own group, with a log."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log_path: Path) -> None:
        self.name = name
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        return self._popen.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill the whole group, as a power failure would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(PATIENCE_S)

    def kill_with_children(self) -> None:
        """Also those in groups of their own, which a supervisor has started."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self.kill()


class Live:
    """Starts processes on one server, in one state directory, and sees the fleet."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.store = new_store(server.url)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("NXS_", "CELERY_"))},
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "SHOP_BROKER": server.url,
            "NXS_STATE_DIR": str(directory / "state"),
            "NXS_PLACEMENT_SAMPLE": "1",
            "FLOWER_UNAUTHENTICATED_API": "true",
        }
        self._processes: list[Process] = []

    def start(self, name: str, *argv: str) -> Process:
        """Any command of this Python's environment."""
        command = [sys.executable, "-m", *argv]
        process = Process(name, command, self.env, self.directory / f"{name}.log")
        self._processes.append(process)
        return process

    def worker(self, name: str, slots: int, *options: str, app: str = APP) -> Process:
        argv = ("worker", "-n", name, "-c", str(slots), "-l", "INFO", *options)
        return self.start(name, "celery", "-A", app, *argv)

    def control_plane(self) -> list[Process]:
        control = ("-Q", "nxs.control", "-P", "threads")
        return [
            self.worker("control@t", 2, *control),
            self.start("beat", "celery", "-A", APP, "beat", "--pidfile=", "-l", "INFO"),
        ]

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", *argv],
            cwd=ROOT,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def nxs(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.command("nxs_tasks.cli", "-A", APP, *argv)

    def snapshot(self) -> Snapshot:
        return self.store.snapshot(full=True)

    def instance(self, name: str) -> Instance:
        found = self.snapshot().get(name)
        assert found is not None, f"{name} has no record"
        return found

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
        """Wait for a condition; on failure show states and the ends of all logs."""
        if wait_until(condition, patience):
            return
        states = [f"{i.id} {i.state} {i.verdict}" for i in self.snapshot().instances]
        logs = [f"--- {p.name} ({p.exit_code})\n{p.log[-1500:]}" for p in self._processes]
        raise AssertionError("\n".join([f"not within {patience} s: {what}", *states, *logs]))

    def until_state(self, state: State, *names: str) -> None:
        def reached() -> bool:
            found = {i.id for i in self.snapshot().instances if i.state is state}
            return set(names) <= found

        self.until(reached, f"{', '.join(names)} {state}")

    def end(self) -> None:
        for process in self._processes:
            process.kill_with_children()


@contextmanager
def live_fleet(directory: Path) -> Iterator[Live]:
    """A server of its own and room for processes on it; ends all."""
    server = Server(directory / "server")
    live = Live(server, directory)
    try:
        yield live
    finally:
        live.end()
        server.kill()


@contextmanager
def shop_app(live: Live) -> Iterator[Any]:
    """The shop's module, loaded in this process against the live server."""
    import importlib

    added = {k: v for k, v in live.env.items() if k.startswith(("NXS_", "SHOP_"))}
    before = {k: os.environ.get(k) for k in added}
    os.environ.update(added)
    _forget()
    try:
        module = importlib.import_module(APP)
        yield module
        # Celery unsubscribes from a result when the object dies: while the server lives.
        gc.collect()
        module.app.close()
    finally:
        _forget()
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _forget() -> None:
    for name in (APP, STOCK_APP):
        sys.modules.pop(name, None)
