"""Machines that run NXS: they claim by warm keys, steal while they are idle, and may leave."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from bench.sim.claims import take_from_another, take_shared
from bench.sim.loop import EPOCH_S, Loop
from bench.sim.machine import SHARED, Machine
from bench.sim.work import Job
from bench.sim.world import World
from nxs_tasks.model.decision import Steal
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.stealing import LONGEST, steal
from nxs_tasks.settings import Settings


class Fleet(World):
    """A free slot takes from its own line, then what is shared, then from the line of another.

    A thief that has a free slot asks again when the line of its victim grows, after the victim
    itself, and at each of its looks.
    """

    def __init__(
        self,
        loop: Loop,
        machines: Sequence[Machine],
        rng: Random,
        settings: Settings,
        *,
        keyed: bool = True,
        reload_s: float = 0.0,
    ) -> None:
        """`keyed`: tasks declare what they want to find in a cache."""
        super().__init__(loop, machines, rng, checked=True, reload_s=reload_s)
        self.settings = settings
        self._keyed = keyed
        #: Jobs that were taken from the line of another machine.
        self.stolen = 0

    def begin(self, machine: Machine, beat_period: float) -> None:
        """Beats, and looks at the lines of others; who finds nothing now is idle from now on."""
        super().begin(machine, beat_period)
        self.loop.at(self.loop.now, self.wake, machine)
        self.again(machine, self.settings.steal_period, partial(self._look, machine))

    def join(self, job: Job, machine: Machine) -> None:
        """A job joins a line; whoever steals from it hears of it too."""
        super().join(job, machine)
        for thief in self.machines:
            if machine.line and thief.victim == machine.id:
                self.wake(thief)

    def take_for(self, machine: Machine) -> Job | None:
        """What a free slot takes. An idle machine stays idle while it steals."""
        job = self._of_its_own(machine)
        if job is not None:
            machine.idle_since = machine.victim = None
            return job
        job = self._of_another(machine)
        if job is None and machine.idle_since is None:
            machine.idle_since = self.loop.now
        return job

    def start(self, job: Job, machine: Machine) -> None:
        """A job takes a slot, and its key is remembered."""
        if job.key and self._keyed:
            machine.use_key(job.key, self.settings.affinity_keys)
        super().start(job, machine)

    def leave(self, machine: Machine) -> None:
        """It takes nothing any more and gives back what waits; what it runs comes to its end."""
        machine.state, machine.since = State.LEAVING, self.loop.now
        machine.victim = None
        self.shared.extendleft(reversed(machine.line))
        machine.line.clear()
        self.wake_all()

    def wake_all(self) -> None:
        """Have everybody take what they can, in an order of chance."""
        for machine in self._rng.sample(self.machines, len(self.machines)):
            self.wake(machine)

    def _of_its_own(self, machine: Machine) -> Job | None:
        if machine.line:
            return machine.line.popleft()
        if not self.shared:
            return None
        return take_shared(self.shared, machine.keys, self._longest_s(machine), self.loop.now)

    def _of_another(self, machine: Machine) -> Job | None:
        if machine.victim is None:
            return None
        line = self.machine(machine.victim).line
        job = take_from_another(line, machine.keys, self._longest_s(machine), self.loop.now)
        self.stolen += job is not None
        return job

    def _longest_s(self, machine: Machine) -> float:
        return self.settings.affinity_wait * (machine.tally.mean_s or 0.0)

    def _look(self, machine: Machine) -> None:
        since = machine.idle_since
        if since is None or self.loop.now - since < self.settings.steal_period:
            machine.victim = None
            return
        lines = self._lines(machine)
        decision = steal(machine.instance(live=True), lines, self.settings)
        machine.victim = decision.victims[0] if isinstance(decision, Steal) else None
        self.wake(machine)

    def _lines(self, thief: Machine) -> Snapshot:
        """The longest lines, and the thief: what `FleetStore.snapshot(longest=…)` has."""
        waiting = [m for m in self.machines if m.line and m is not thief]
        longest = sorted(waiting, key=lambda m: -len(m.line))[:LONGEST]
        instances = [m.instance(live=True) for m in (*longest, thief)]
        return Snapshot(
            taken_at=EPOCH_S + self.loop.now,
            instances=tuple(sorted(instances, key=lambda i: i.id)),
            shared_queue=SHARED,
        )
