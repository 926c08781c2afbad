"""The processes of one side: workers in several pools, and what else it needs to run."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from chaos.forkserver import ForkServer
from nxs_tasks.clock import SYSTEM

#: Pools of the workers, in turn.
POOLS = ("threads", "prefork", "solo", "threads")
#: Not needed, and each costs something at every start.
QUIET = ("-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")

#: How much of a log is told.
TAIL_LINES = 30


class Condition(Enum):
    """How a place in the crew is."""

    UP = "up"
    FROZEN = "frozen"
    LEAVING = "leaving"
    DOWN = "down"


class Role(Enum):
    """What a place in the crew is for."""

    WORKER = "runs tasks of users"
    CONTROL = "of the control plane"
    SUBMITTER = "submits"


@dataclass(slots=True)
class Place:
    """One place in the crew, taken by one process after the other.

    It runs a command of `celery`, or `call` (`module:function`) with its life and `argv`.
    """

    name: str
    argv: tuple[Any, ...]
    role: Role
    pool: str = ""
    call: str = ""
    life: int = 0
    pid: int = 0
    condition: Condition = Condition.DOWN
    names: int = 0
    leaves_by: float = 0.0  # monotonic, s: while LEAVING

    @property
    def holder(self) -> str:
        """This life of it, as the ledger calls it."""
        return f"{self.name}.{self.life}"

    @property
    def node(self) -> str:
        """Its node name in this life."""
        return f"{self.name}@chaos"

    def rename(self) -> None:
        """Take another node name from the next life on."""
        base = self.name.partition("-")[0]
        self.names += 1
        self.name = f"{base}-{self.names}"

    def command(self) -> tuple[str, list[Any]]:
        """What it runs now: a function and its arguments."""
        if self.call:
            return self.call, [self.life, *self.argv]
        argv = [argument.replace("NAME", self.name) for argument in self.argv]
        return "chaos.forkserver:run_celery", [argv]


def worker_places(count: int, slots: int, pools: Sequence[str] = POOLS) -> list[Place]:
    """`count` workers, their pools in turn."""
    return [worker_place(f"w{n}", pools[n % len(pools)], slots) for n in range(count)]


def worker_place(name: str, pool: str, slots: int) -> Place:
    """One worker, not yet started."""
    size = ("-c", "1" if pool == "solo" else str(slots))
    argv = ("worker", "-n", "NAME@chaos", "-P", pool, *size, *QUIET)
    return Place(name, argv, Role.WORKER, pool)


def control_places() -> list[Place]:
    """A control worker and a beat."""
    control = ("worker", "-n", "NAME@chaos", "-Q", "nxs.control", "-P", "threads", "-c", "3")
    beat = ("beat", "--pidfile=", "-l", "WARNING")
    return [
        Place("control", (*control, *QUIET), Role.CONTROL),
        Place("beat", beat, Role.CONTROL),
    ]


class Crew:
    """Starts, strikes and watches processes."""

    def __init__(self, forks: ForkServer, places: Sequence[Place], logs: Path) -> None:
        self._forks = forks
        self._logs = logs
        self.places = tuple(places)
        self._orphaned: set[int] = set()  # groups whose head was killed alone

    def start(self, place: Place) -> None:
        """A new life."""
        place.life += 1
        call, arguments = place.command()
        log = self.log_of(place)
        place.pid = self._forks.fork(call, arguments, log, {"CHAOS_HOLDER": place.holder})
        place.condition = Condition.UP

    def kill(self, place: Place, *, alone: bool = False) -> None:
        """SIGKILL to the group, or to its main process alone; the others may then run on."""
        if alone:
            os.kill(place.pid, signal.SIGKILL)
            self._forks.reap(place.pid)
            self._orphaned.add(place.pid)
        else:
            self._forks.kill(place.pid)
        place.condition = Condition.DOWN

    def end_orphans(self, group: int | None = None) -> None:
        """Kill who is left of a group, or of all groups, whose head was killed alone."""
        groups = self._orphaned if group is None else self._orphaned & {group}
        for process in psutil.process_iter() if groups else ():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getpgid(process.pid) in groups:
                    process.kill()
        self._orphaned -= groups

    def freeze(self, place: Place, *, alone: bool = False) -> None:
        """SIGSTOP to the group, or to its main process alone; its pool then runs on."""
        (os.kill if alone else os.killpg)(place.pid, signal.SIGSTOP)
        place.condition = Condition.FROZEN

    def wake(self, place: Place) -> None:
        """SIGCONT to the group."""
        os.killpg(place.pid, signal.SIGCONT)
        place.condition = Condition.UP

    def tell_to_leave(self, place: Place, within_s: float) -> None:
        """A warm shutdown begins. It may take so long."""
        os.kill(place.pid, signal.SIGTERM)
        place.condition = Condition.LEAVING
        place.leaves_by = SYSTEM.monotonic() + within_s

    def ended(self, place: Place) -> int | None:
        """The exit code of a process that has ended, else None."""
        return self._forks.exit_code(place.pid)

    def tail(self, place: Place) -> str:
        """The last lines of its log."""
        said = self.log_of(place).read_text(errors="replace").splitlines()
        return "\n".join(said[-TAIL_LINES:])

    def log_of(self, place: Place) -> Path:
        """Where this life of it writes."""
        return self._logs / f"{place.holder}.log"

    def children(self, place: Place) -> list[psutil.Process]:
        """The pool processes of a worker."""
        try:
            return psutil.Process(place.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ports(self, place: Place) -> list[int]:
        """Its own ends of all TCP connections of the worker and its pool."""
        found: list[int] = []
        for pid in (place.pid, *(child.pid for child in self.children(place))):
            try:
                connections = psutil.Process(pid).net_connections("tcp")
            except psutil.NoSuchProcess:
                continue
            found += [c.laddr.port for c in connections if c.status == psutil.CONN_ESTABLISHED]
        return sorted(set(found))
