"""S2: real workers, equal work. What does placing cost where one shared queue is the best?"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import TypeVar

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.placement.naps import NOTED, make, nap_of
from bench.placement.spread import Spread
from bench.placement.trial import SEEDS
from bench.process import started
from bench.server import own_server
from bench.shop import plug, unplug
from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.control.jobs import lifecycle
from nxs_tasks.model.state import State
from nxs_tasks.store import connect

T = TypeVar("T")

WORKERS = 4
TASKS = 2000
NAP_S = (0.02, 0.2)
#: Tasks that are sent one at a time to workers that do nothing, for each seed.
SINGLE = 60
STARTING_S, PATIENCE_S = 60.0, 240.0

GOAL = Goal("ratio", "<=", 1.05)
BETTER = Goal("ratio", "<=", 1.00)
GOAL_FIRST = Goal("ratio", "<=", 1.10)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the sides."""

    name: str
    fleet: bool = False


OURS, PEER, DEFAULT = Kind("NXS", fleet=True), Kind("celery"), Kind("default")
KINDS = (OURS, PEER, DEFAULT)


@dataclass(frozen=True, slots=True)
class Nap:
    """What became of a task: wall times, s."""

    number: int
    started: float
    ended: float


class Side:
    """One side: its server, its running workers, and who submits to them."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.kind = kind
        self._client = connect(url)
        app = make(url, kind.name)
        self._nap = nap_of(app)
        self._fleet = Fleet(app) if kind.fleet else None
        if self._fleet is not None:
            unplug(self._fleet)

    def ready(self) -> bool:
        """Whether all of its workers are there, and take work."""
        if self._fleet is None:
            return len(self._client.client_list(_type="normal")) > WORKERS and self._brpops()
        # What a control worker does every 5 s: without it nobody becomes ACTIVE.
        lifecycle(self._fleet.runtime)
        known = self._fleet.runtime.store().snapshot().instances
        return sum(i.state is State.ACTIVE for i in known) == WORKERS

    def _brpops(self) -> bool:
        waiting = [c for c in self._client.client_list() if c["cmd"].lower() == "brpop"]
        return len(waiting) == WORKERS

    def submit(self, seconds: Sequence[float]) -> float:
        """Send a task for each; the wall time of the first."""
        self._client.delete(NOTED)
        # The signal belongs to the process: on for our own publishes only.
        if self._fleet is not None:
            plug(self._fleet)
        try:
            began = SYSTEM.now()
            for number, nap_s in enumerate(seconds):
                self._nap.delay(number, nap_s)
        finally:
            if self._fleet is not None:
                unplug(self._fleet)
        return began

    def leave(self) -> None:
        """Send what is still kept here."""
        if self._fleet is not None:
            self._fleet.submitter.flush()

    def naps(self, count: int) -> list[Nap]:
        """Wait until so many are noted. Raises `BenchError` if one ran twice or not at all."""
        if not wait_until(lambda: self._client.llen(NOTED) >= count, PATIENCE_S, poll_s=0.005):
            done = self._client.llen(NOTED)
            raise BenchError(f"{self.kind.name}: {done} of {count} tasks done")
        noted = [str(line).split() for line in self._client.lrange(NOTED, 0, -1)]
        if sorted(int(line[0]) for line in noted) != list(range(count)):
            raise BenchError(f"{self.kind.name}: not every task was done once")
        return [Nap(int(n), float(started), float(ended)) for n, started, ended in noted]


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    makespans: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
    firsts: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
    bounds = []
    with ExitStack() as stack:
        say(f"S2: starting {WORKERS * len(KINDS)} workers")
        sides = [stack.enter_context(_side(kind)) for kind in KINDS]
        for side in sides:
            if not wait_until(side.ready, STARTING_S):
                raise BenchError(f"{side.kind.name}: its workers are not there")
        for seed in SEEDS:
            say(f"S2: seed {seed} of {len(SEEDS)}, one at a time")
            for name, late in _one_at_a_time(sides, seed).items():
                firsts[name].append(late)
            say(f"S2: seed {seed} of {len(SEEDS)}, {TASKS} tasks")
            rng = Random(seed)
            seconds = [rng.uniform(*NAP_S) for _ in range(TASKS)]
            bounds.append(max(sum(seconds) / WORKERS, max(seconds)))
            for name, took in _all_at_once(sides, seconds, seed).items():
                makespans[name].append(took)
    yield from _figures(makespans, firsts, bounds)


def _one_at_a_time(sides: Sequence[Side], seed: int) -> dict[str, float]:
    late: dict[str, list[float]] = {side.kind.name: [] for side in sides}
    for number in range(SINGLE + 1):
        for side in _turned(sides, seed + number):
            began = side.submit([0.0])
            [nap] = side.naps(1)
            # The first wakes everything up: caches, connections, a view of the fleet.
            if number:
                late[side.kind.name].append(nap.started - began)
    return {name: median(found) for name, found in late.items()}


def _all_at_once(sides: Sequence[Side], seconds: Sequence[float], seed: int) -> dict[str, float]:
    began = {side.kind.name: side.submit(seconds) for side in _turned(sides, seed)}
    return {
        side.kind.name: max(nap.ended for nap in side.naps(len(seconds))) - began[side.kind.name]
        for side in sides
    }


def _turned(sides: Sequence[T], by: int) -> list[T]:
    # Who is first changes.
    first = by % len(sides)
    return [*sides[first:], *sides[:first]]


def _figures(
    makespans: dict[str, list[float]], firsts: dict[str, list[float]], bounds: list[float]
) -> Iterator[Figure]:
    ours = makespans[OURS.name]
    yield Spread(ours, makespans[PEER.name]).figure("S2 makespan", "s", PEER.name, GOAL)
    yield Spread(ours, makespans[DEFAULT.name]).figure("S2 makespan", "s", DEFAULT.name, BETTER)
    yield Spread(ours, bounds).figure("S2 makespan", "s", "sum / 4")
    late, peer = ([s * 1000 for s in firsts[kind.name]] for kind in (OURS, PEER))
    yield Spread(late, peer).figure("S2 first task", "ms", PEER.name, GOAL_FIRST)


@contextmanager
def _side(kind: Kind) -> Iterator[Side]:
    with ExitStack() as stack:
        url = stack.enter_context(own_server())
        workers = [
            stack.enter_context(_worker(f"nap{number}@{kind.name}", url, kind))
            for number in range(WORKERS)
        ]
        side = Side(url, kind)
        try:
            yield side
        finally:
            side.leave()
            # All are told before one is waited for.
            for worker in workers:
                worker.terminate()


@contextmanager
def _worker(name: str, url: str, kind: Kind) -> Iterator[subprocess.Popen[bytes]]:
    app = "bench.placement.napper"
    with started(app, name, 1, url, fleet=kind.fleet, BENCH_KIND=kind.name) as worker:
        try:
            yield worker.process
        finally:
            worker.end()
