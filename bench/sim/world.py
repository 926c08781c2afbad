"""The broker and the machines: where a job waits, who takes it, when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Protocol

from bench.sim.loop import EPOCH_S, Loop
from bench.sim.machine import SHARED, Machine
from bench.sim.work import Job
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.worker.tally import Tally

#: The answer of a placing that keeps a job, and will have it arrive again.
HELD = ""


class Placing(Protocol):
    """Where a job goes."""

    def choose(self, job: Job) -> str | None:
        """The machine whose line it joins; None for the shared queue; `HELD`."""


class World:
    """Machines around one shared queue. A free slot takes from its own line, then from that."""

    def __init__(
        self,
        loop: Loop,
        machines: Sequence[Machine],
        rng: Random,
        *,
        checked: bool = False,
        reload_s: float = 0.0,
    ) -> None:
        """`checked`: a job whose limit the chosen machine has reached when it comes is shared.

        `reload_s` is what a job takes longer whose key is not in the machine's cache.
        """
        self.loop = loop
        self.machines = list(machines)
        self.shared: deque[Job] = deque()
        self.done: list[Job] = []
        #: Jobs that are not done.
        self.left = 0
        #: Told of each job that has ended, before its slot takes another one.
        self.on_end: list[Callable[[Job, Machine], None]] = []
        #: Told of each heartbeat.
        self.on_beat: list[Callable[[Machine], None]] = []
        self._rng = rng
        self._checked = checked
        self._reload_s = reload_s
        self._by_id = {machine.id: machine for machine in machines}
        for machine in machines:
            machine.tally = Tally(self._now)
        self._beat_period: float | None = None

    def machine(self, id_: str) -> Machine:
        """The machine of that id."""
        return self._by_id[id_]

    def _now(self) -> float:
        return self.loop.now

    def add(self, machine: Machine) -> None:
        """A machine joins, and takes from the shared queue at once."""
        self.machines.append(machine)
        self._by_id[machine.id] = machine
        machine.tally = Tally(self._now)
        machine.since = self.loop.now
        machine.beat(self.loop.now)
        if self._beat_period is not None:
            self.begin(machine, self._beat_period)
        self.wake(machine)

    def snapshot(self, *, live: bool = True) -> Snapshot:
        """The fleet as the store tells it: counts are of now, the rest of the last heartbeats."""
        instances = sorted((m.instance(live=live) for m in self.machines), key=lambda i: i.id)
        return Snapshot(
            taken_at=EPOCH_S + self.loop.now,
            instances=tuple(instances),
            shared_queue=SHARED,
            shared_depth=len(self.shared),
        )

    def beat_every(self, period: float) -> None:
        """Have every machine beat, each at a moment of its own, until all is done."""
        self._beat_period = period
        for machine in self.machines:
            machine.beat(self.loop.now)
            self.begin(machine, period)

    def begin(self, machine: Machine, beat_period: float) -> None:
        """Start what a machine does again and again."""
        self.again(machine, beat_period, partial(self._beat, machine))

    def again(self, machine: Machine, period: float, call: Callable[[], object]) -> None:
        """Call from a random moment on, while the machine is there and something is to be done."""
        first = self.loop.now + self._rng.uniform(0.0, period)
        self.loop.at(first, self.loop.every, period, call, partial(self._goes_on, machine))

    def _beat(self, machine: Machine) -> None:
        machine.beat(self.loop.now)
        for told in self.on_beat:
            told(machine)

    def _goes_on(self, machine: Machine) -> bool:
        return bool(self.left and machine.up)

    def submit(self, jobs: Iterable[Job], placings: Sequence[Placing]) -> None:
        """Have jobs arrive at their times, each by one of several submitters."""
        for job in jobs:
            self.left += 1
            placing = placings[0] if len(placings) == 1 else self._rng.choice(placings)
            self.loop.at(job.arrives, self.arrive, job, placing)

    def arrive(self, job: Job, placing: Placing) -> None:
        """A job is submitted now."""
        chosen = placing.choose(job)
        if chosen == HELD:
            return
        machine = None if chosen is None else self._by_id[chosen]
        if machine is not None and self._checked and self._is_full(machine, job):
            machine = None
        if machine is None:
            self.shared.append(job)
            self.wake_any()
        else:
            self.join(job, machine)

    def _is_full(self, machine: Machine, job: Job) -> bool:
        limit = job.limit
        return limit is not None and machine.running + len(machine.line) >= limit

    def join(self, job: Job, machine: Machine) -> None:
        """A job joins the line of a machine."""
        machine.line.append(job)
        self.wake(machine)

    def wake_any(self) -> None:
        """Have one of those with a free slot take what is shared."""
        idle = [m for m in self.machines if m.free > 0]
        # Whoever asks first has it, and that is chance.
        if idle:
            self.wake(idle[0] if len(idle) == 1 else self._rng.choice(idle))

    def wake(self, machine: Machine) -> None:
        """Have a machine take what it can."""
        while machine.free > 0:
            job = self.take_for(machine)
            if job is None:
                return
            self.start(job, machine)

    def take_for(self, machine: Machine) -> Job | None:
        """What a free slot takes: taken away from where it waits."""
        if machine.line:
            return machine.line.popleft()
        return self.shared.popleft() if self.shared else None

    def start(self, job: Job, machine: Machine) -> None:
        """A job takes a slot now."""
        machine.running += 1
        job.machine, job.started = machine.id, self.loop.now
        takes = job.service / machine.speed
        job.hit = machine.touch(job.key)
        if not job.hit:
            takes += self._reload_s
        job.failed = job.bad
        if machine.fails_after is not None:
            takes, job.failed = machine.fails_after, True
        self.loop.at(self.loop.now + takes, self._end, job, machine)

    def _end(self, job: Job, machine: Machine) -> None:
        machine.running -= 1
        job.ended = self.loop.now
        machine.ended(job, job.ended - job.started)
        self.left -= 1
        self.done.append(job)
        for told in self.on_end:
            told(job, machine)
        self.wake(machine)
