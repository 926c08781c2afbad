"""A rolling restart of real workers under load: what is lost, what is doubled, who waits longer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.placement.naps import KINDS, NOTED, make, nap_of
from bench.process import TOLD_TO, WorkerProcess, started
from bench.server import own_server
from bench.shop import plug, unplug
from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.control.jobs import lifecycle
from nxs_tasks.model.state import State
from nxs_tasks.store import connect

BENCH = "lifecycle"
OURS, PEER, DEFAULT = KINDS
WORKERS, SLOTS = 3, 2
SHORT_S, LONG_S, LONG_SHARE = (0.2, 1.0), 8.0, 0.1
LOAD = 0.45
SEED = 1
#: So long the load goes on in each run at least, and after the last worker is back, s.
QUIET_S, AFTER_S = 90.0, 5.0
STARTING_S, ROLLING_S, PATIENCE_S = 120.0, 300.0, 120.0
#: One look of the loop that submits, and the period of what a control worker does, s.
LOOK_S, CONTROL_S = 0.02, 1.0

NONE = Goal("value", "<=", 0.0)
SOON = Goal("value", "<=", 10.0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task that comes so long after the beginning, and takes so long, s."""

    at: float
    nap_s: float


class Side:
    """One side: its server, its workers, who submits to it, and how far its restart is."""

    def __init__(self, kind: str, url: str, stack: ExitStack) -> None:
        self.kind = kind
        self._url = url
        self._stack = stack
        self._client = connect(url)
        self._app = make(url, kind)
        self._nap = nap_of(self._app)
        self._fleet = Fleet(self._app) if kind == OURS else None
        if self._fleet is not None:
            unplug(self._fleet)
        self._workers = [self._start(number) for number in range(WORKERS)]
        self.submitted: list[float] = []
        #: Workers that are still to be restarted, the first now; and whether that one has ended.
        self.rolls: list[int] = []
        self._ended = False

    def _start(self, number: int) -> WorkerProcess:
        return self._stack.enter_context(_worker(self._name(number), self._url, self.kind))

    def _name(self, number: int) -> str:
        return f"roll{number}@{self.kind}"

    def tend(self) -> None:
        """What a control worker does: without it nobody becomes ACTIVE."""
        if self._fleet is not None:
            lifecycle(self._fleet.runtime)

    def ready(self) -> bool:
        """Whether all of its workers are there, and take work."""
        if self._fleet is None:
            return self._listening() >= WORKERS
        known = self._fleet.runtime.store().snapshot().instances
        return sum(i.state is State.ACTIVE for i in known) == WORKERS

    def _listening(self) -> int:
        # Each worker of Celery listens for control messages when it has begun to consume.
        return sum(int(c["sub"]) + int(c["psub"]) > 0 for c in self._client.client_list())

    def begin(self) -> None:
        """Forget what was."""
        self._client.delete(NOTED)
        self.submitted = []

    def submit(self, nap_s: float) -> None:
        """Send the next task."""
        # The signal belongs to the process: on for our own publishes only.
        if self._fleet is not None:
            plug(self._fleet)
        try:
            number = len(self.submitted)
            self.submitted.append(SYSTEM.now())
            self._nap.delay(number, nap_s)
        finally:
            if self._fleet is not None:
                unplug(self._fleet)

    def roll(self) -> None:
        """Go on with the restart as far as is possible now."""
        if not self.rolls:
            return
        worker = self._workers[self.rolls[0]]
        if not self._ended:
            self._told_to_end(worker)
        elif self.ready():
            self._ended = False
            del self.rolls[0]
            if self.rolls:
                self._workers[self.rolls[0]].process.terminate()

    def begin_to_roll(self) -> None:
        """Restart all, one after the other."""
        self.rolls, self._ended = list(range(WORKERS)), False
        self._workers[0].process.terminate()

    def _told_to_end(self, worker: WorkerProcess) -> None:
        code = worker.process.poll()
        if code is None:
            return
        if code not in TOLD_TO:
            raise BenchError(f"{worker.name} ended with {code}")
        self._ended = True
        self._workers[self.rolls[0]] = self._start(self.rolls[0])

    def account(self) -> Account:
        """Wait until nothing is to be done any more, and tell what the tasks have noted."""
        count = len(self.submitted)
        wait_until(lambda: self._noted() >= count, PATIENCE_S)
        # One that is done twice may come later than the last one that is done once.
        wait_until(lambda: self._noted() > count, 2 * LONG_S)
        noted = [str(line).split() for line in self._client.lrange(NOTED, 0, -1)]
        began: dict[int, float] = {}
        for number, at, _ in noted:
            began[int(number)] = min(float(at), began.get(int(number), float("inf")))
        waits = {n: began[n] - self.submitted[n] for n in sorted(began)}
        return Account(count - len(began), len(noted) - len(began), waits)

    def _noted(self) -> int:
        return int(self._client.llen(NOTED))

    def leave(self) -> None:
        """Send what is still kept here, and have all workers end."""
        if self._fleet is not None:
            self._fleet.submitter.flush()
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.terminate()


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the tasks of one run."""

    lost: int
    doubled: int
    waits: dict[int, float]  # by number, s

    def added(self, quiet: Account) -> float:
        """The worst of what a task waited longer than in the quiet run, s."""
        # What came after the quiet run had ended has nothing to be compared with: all of it counts.
        return max(wait - quiet.waits.get(n, 0.0) for n, wait in self.waits.items())


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    with ExitStack() as stack:
        say(f"rolling: starting {WORKERS * len(KINDS)} workers")
        sides = [stack.enter_context(_side(kind)) for kind in KINDS]
        if not wait_until(lambda: _all_ready(sides), STARTING_S, poll_s=CONTROL_S):
            raise BenchError("rolling: some workers are not there")
        arrivals = _arrivals(ROLLING_S)
        say("rolling: the load alone")
        quiet = _run(sides, arrivals, rolling=False)
        say("rolling: the load, and every worker is restarted")
        rolled = _run(sides, arrivals, rolling=True)
    yield from _figures(quiet, rolled)


def _all_ready(sides: Sequence[Side]) -> bool:
    for side in sides:
        side.tend()
    return all(side.ready() for side in sides)


def _arrivals(seconds: float) -> list[Arrival]:
    rng = Random(SEED)
    mean = (1 - LONG_SHARE) * sum(SHORT_S) / 2 + LONG_SHARE * LONG_S
    rate = LOAD * WORKERS * SLOTS / mean
    found, at = [], 0.0
    while at < seconds:
        at += rng.expovariate(rate)
        long = rng.random() < LONG_SHARE
        found.append(Arrival(at, LONG_S if long else rng.uniform(*SHORT_S)))
    return found


def _run(
    sides: Sequence[Side], arrivals: Sequence[Arrival], *, rolling: bool
) -> dict[str, Account]:
    began = tended = SYSTEM.monotonic()
    for side in sides:
        side.begin()
        if rolling:
            side.begin_to_roll()
    done, over = 0, QUIET_S
    while (now := SYSTEM.monotonic() - began) < over:
        while done < len(arrivals) and arrivals[done].at <= now:
            for side in sides:
                side.submit(arrivals[done].nap_s)
            done += 1
        if now + began - tended >= CONTROL_S:
            tended = now + began
            for side in sides:
                side.tend()
                side.roll()
        if rolling:
            busy = any(side.rolls for side in sides)
            over = ROLLING_S if busy else min(over, max(QUIET_S, now + AFTER_S))
        wait_until(lambda: False, LOOK_S, poll_s=LOOK_S)
    if any(side.rolls for side in sides):
        raise BenchError(f"rolling: not done within {ROLLING_S:.0f} s")
    return {side.kind: side.account() for side in sides}


def _figures(quiet: dict[str, Account], rolled: dict[str, Account]) -> Iterator[Figure]:
    for kind in KINDS:
        ours, name = kind == OURS, "" if kind == OURS else f", {_name_of(kind)}"
        account = rolled[kind]
        yield _one(f"rolling: lost{name}", account.lost, "tasks", NONE if ours else None)
        yield _one(f"rolling: doubled{name}", account.doubled, "tasks", NONE if ours else None)
        yield _one(f"rolling: worst wait{name}", max(account.waits.values()), "s")
        before = max(quiet[kind].waits.values())
        yield _one(f"rolling: worst wait without restart{name}", before, "s")
    for peer in (PEER, DEFAULT):
        ours_s, peer_s = (rolled[kind].added(quiet[kind]) for kind in (OURS, peer))
        yield Figure(
            bench=BENCH,
            metric="rolling: added wait, worst",
            value=ours_s,
            unit="s",
            peer=_name_of(peer),
            peer_value=peer_s,
            ratio=ours_s / peer_s if peer_s > 0 else None,
            goal=SOON,
        )


def _name_of(kind: str) -> str:
    return "celery's default" if kind == DEFAULT else kind


def _one(metric: str, value: float, unit: str, goal: Goal | None = None) -> Figure:
    return Figure(bench=BENCH, metric=metric, value=value, unit=unit, goal=goal)


@contextmanager
def _side(kind: str) -> Iterator[Side]:
    with ExitStack() as stack:
        url = stack.enter_context(own_server())
        side = Side(kind, url, stack)
        try:
            yield side
        finally:
            side.leave()


@contextmanager
def _worker(name: str, url: str, kind: str) -> Iterator[WorkerProcess]:
    app = "bench.placement.napper"
    with started(app, name, SLOTS, url, fleet=kind == OURS, BENCH_KIND=kind) as worker:
        try:
            yield worker
        finally:
            _end(worker)


def _end(worker: WorkerProcess) -> None:
    if worker.process.poll() is not None:
        return
    try:
        worker.end()
    except subprocess.TimeoutExpired:
        worker.kill()
        raise BenchError(f"{worker.name} does not end") from None
