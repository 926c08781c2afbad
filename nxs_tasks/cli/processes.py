"""Child processes of `nxs up` and `nxs node`: started, watched, restarted, ended.

Each child is the head of a process group of its own. So a Ctrl-C in the terminal reaches only us,
and we end the children in order and gracefully; and what must be killed is killed with its pool.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from nxs_tasks.cli.interrupts import held_back, ignore_signals, take
from nxs_tasks.clock import SYSTEM, Clock, repeat, wait_until
from nxs_tasks.errors import NxsError

#: Restart delays of a child that keeps dying, s; a child that ran longer starts over.
BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0)
RAN_WELL_S = 60.0
#: Between two looks at the children.
WATCH_S = 0.5
#: From SIGKILL until the last process of a group is gone.
GROUP_END_S = 5.0
TAIL_LINES = 12


class ChildFailed(NxsError):
    """A child process ended or did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run under which name."""

    name: str
    argv: tuple[str, ...]
    grace_s: float  # from SIGTERM to SIGKILL
    keeps: tuple[int, ...] = ()  # file descriptors that stay open in it, such as a lock


class Child:
    """One process of a spec, and its restarts."""

    def __init__(
        self, spec: Spec, log_dir: Path | None, env: Mapping[str, str], clock: Clock
    ) -> None:
        self.spec = spec
        #: None = it writes to where we write.
        self.log_path = log_dir / f"{spec.name}.log" if log_dir is not None else None
        self._env = dict(env)
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._deaths = 0
        self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        """Its pid, while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last process, once it has ended."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it. Its output is appended to its log, or goes where ours goes."""
        with held_back(), self.log_path.open("ab") if self.log_path else nullcontext() as log:
            self._process = subprocess.Popen(
                self.spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
                env=self._env,
                pass_fds=self.spec.keeps,
                # A group, not a session: Linux shares the processor between sessions, and
                # one slot of a small worker would get as much as three of a large one.
                process_group=0,
            )
        self._started_at = self._clock.monotonic()

    def restart_if_due(self) -> str:
        """Start it again if it died and its delay is over; returns what to tell, or ""."""
        if self.alive:
            return ""
        now = self._clock.monotonic()
        if not self._next_start:
            self._deaths = 1 if now - self._started_at > RAN_WELL_S else self._deaths + 1
            delay = BACK_OFF[min(self._deaths, len(BACK_OFF)) - 1]
            self._next_start = now + delay
            return (
                f"{self.spec.name} ended with {self.exit_code}, starting it again in {delay:.0f} s"
            )
        if now >= self._next_start:
            self._next_start = 0.0
            self.start()
        return ""

    def tail(self) -> str:
        """The end of its log, if it has one."""
        if self.log_path is None:
            return ""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def signal(self, number: int) -> None:
        """Send a signal to its main process."""
        if self._process is not None and self.alive:
            self._process.send_signal(number)

    def end(self) -> None:
        """Wait for its end as long as its grace allows, and kill what is left."""
        wait_until(lambda: not self.alive, self.spec.grace_s)
        self.kill()

    def kill(self) -> None:
        """Kill what is left of its process group, and reap it."""
        if self._process is None:
            return
        # Mostly the whole group has ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # A child of its pool may take a moment longer.
        wait_until(self._group_has_ended, GROUP_END_S, poll_s=0.01)

    def _group_has_ended(self) -> bool:
        if self._process is None:
            return True
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False


class Supervisor:
    """Runs children, and ends all of them whatever happens: use it as a context manager."""

    def __init__(self, log_dir: Path | None, env: Mapping[str, str], clock: Clock = SYSTEM) -> None:
        self._log_dir = log_dir
        self._env = env
        self._clock = clock
        #: Groups in the order of their start; they are ended in reverse, each group at once.
        self._groups: list[list[Child]] = []

    @property
    def children(self) -> list[Child]:
        """All children, in the order of their start."""
        return [child for group in self._groups for child in group]

    def start(self, *specs: Spec) -> None:
        """Start a group of children."""
        group = [Child(spec, self._log_dir, self._env, self._clock) for spec in specs]
        self._groups.append(group)
        for child in group:
            child.start()

    def require_alive(self) -> None:
        """Raises `ChildFailed` if a child has ended."""
        for child in self.children:
            if not child.alive:
                raise ChildFailed(
                    f"{child.spec.name} ended with {child.exit_code}; the end of its log "
                    f"({child.log_path}):\n{child.tail()}"
                )

    def restart_dead(self) -> list[str]:
        """Restart what died; returns what to tell."""
        return [told for child in self.children if (told := child.restart_if_due())]

    def stop(self) -> None:
        """End all, last group first: SIGTERM, a grace, SIGKILL."""
        for group in reversed(self._groups):
            for child in group:
                child.signal(signal.SIGTERM)
            for child in group:
                child.end()
        self._groups.clear()

    def __enter__(self) -> Supervisor:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all; a second Ctrl-C meanwhile kills them."""
        children = self.children
        try:
            take()
            self.stop()
        except KeyboardInterrupt:
            # Whoever is in such a hurry may press once more: nothing may stop us now.
            ignore_signals()
            for child in children:
                child.kill()
            raise


def celery(app: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a Celery command on an app, with this Python."""
    return (sys.executable, "-m", "celery", "-A", app, *arguments)


def restart_and_tell(supervisor: Supervisor, out: Console) -> None:
    """Restart what has died, and say so."""
    for told in supervisor.restart_dead():
        out.print(told, soft_wrap=True)


def keep_running(supervisor: Supervisor, out: Console) -> NoReturn:
    """Restart what dies, and say so, until Ctrl-C."""

    repeat(lambda: restart_and_tell(supervisor, out), WATCH_S)


def worker_specs(
    app: str, workers: Sequence[tuple[str, int]], grace_s: float, extra: Sequence[str] = ()
) -> list[Spec]:
    """Task workers by (node name, slots); `grace_s` is the time that running tasks may take."""
    return [
        Spec(
            name=name.partition("@")[0],
            argv=celery(app, "worker", "-n", name, "-c", str(slots), "-l", "INFO", "-E", *extra),
            grace_s=grace_s,
        )
        for name, slots in workers
    ]


def control_spec(app: str, host: str, queue: str) -> Spec:
    """The control worker of one machine: threads, and no queue but its own."""
    return Spec(
        name="control",
        argv=celery(
            app, "worker", "-Q", queue, "-n", f"control@{host}", "-P", "threads",
            "-c", "4", "-l", "INFO",
        ),
        grace_s=10.0,
    )  # fmt: skip


def beat_spec(app: str) -> Spec:
    """A beat; of several, one leads."""
    return Spec(name="beat", argv=celery(app, "beat", "-l", "INFO", "--pidfile="), grace_s=10.0)
