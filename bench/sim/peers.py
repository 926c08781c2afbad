"""How others place: each as strong as its authors mean it, or as literal as the specification."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from bench.sim.machine import Machine
from bench.sim.work import Job
from bench.sim.world import HELD, World
from nxs_tasks.policy.fleet.score import score
from nxs_tasks.settings import Settings


class Central:
    """One queue for all, first in first out: what a free slot takes is what has waited longest."""

    def choose(self, job: Job) -> str | None:
        """Nobody in particular."""
        return None


class AtRandom:
    """Any machine."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world, self._rng = world, rng

    def choose(self, job: Job) -> str | None:
        """One of all."""
        return self._rng.choice(self._world.machines).id


class RoundRobin:
    """One after the other."""

    def __init__(self, world: World) -> None:
        self._world, self._next = world, 0

    def choose(self, job: Job) -> str | None:
        """The next one."""
        self._next += 1
        return self._world.machines[self._next % len(self._world.machines)].id


class Watcher:
    """Sees how many jobs each machine has, as it was up to `age` seconds ago."""

    def __init__(self, world: World, age: float) -> None:
        self._world, self._age = world, age
        self._seen: dict[str, int] = {}
        self._seen_at = float("-inf")

    def jobs_per_slot(self, machine: Machine) -> float:
        """Running and waiting, by the slots that there are."""
        now = self._world.loop.now
        if now - self._seen_at >= self._age:
            self._seen_at = now
            self._seen = {m.id: m.running + len(m.line) for m in self._world.machines}
        return self._seen.get(machine.id, 0) / machine.slots


class PowerOfTwo:
    """The less loaded of two that are chosen at random (Mitzenmacher 1996)."""

    def __init__(self, world: World, rng: Random, age: float = 0.0) -> None:
        self._world, self._rng = world, rng
        self._watcher = Watcher(world, age)

    def choose(self, job: Job) -> str | None:
        """One of two."""
        pair = self._rng.sample(self._world.machines, 2)
        return min(pair, key=self._watcher.jobs_per_slot).id


class LeastRequests:
    """The least loaded of all; equals at random."""

    def __init__(self, world: World, rng: Random, age: float = 0.0) -> None:
        self._world, self._rng = world, rng
        self._watcher = Watcher(world, age)

    def choose(self, job: Job) -> str | None:
        """One of the least loaded."""
        loads = {m.id: self._watcher.jobs_per_slot(m) for m in self._world.machines}
        least = min(loads.values())
        return self._rng.choice([id_ for id_, load in loads.items() if load == least])


class Literal:
    """The score as it is written, over metrics of up to `age` seconds ago; ties to the lower id.

    Whom the threshold leaves nobody waits until the metrics are new.
    """

    def __init__(self, world: World, settings: Settings, age: float) -> None:
        self._world, self._settings, self._age = world, settings, age
        self._best = HELD
        self._held: list[Job] = []
        self._look()

    def _look(self) -> None:
        world = self._world
        scores = [(-(score(i, self._settings) or 0.0), i.id) for i in world.snapshot().instances]
        value, chosen = min(scores)
        self._best = chosen if -value > self._settings.threshold else HELD
        held, self._held = self._held, []
        for job in held:
            world.arrive(job, self)
        if world.left or world.loop.now == 0.0:
            world.loop.at(world.loop.now + self._age, self._look)

    def choose(self, job: Job) -> str | None:
        """The best one of the last look."""
        if self._best == HELD:
            self._held.append(job)
        return self._best


class Rendezvous:
    """Each key has its machine: the highest of their hashes with it (Thaler, Ravishankar 1998)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chosen: dict[str, str] = {}

    def choose(self, job: Job) -> str | None:
        """Always the same one for a key."""
        found = self._chosen.get(job.key)
        if found is None:
            ids = (machine.id for machine in self._world.machines)
            found = self._chosen[job.key] = max(ids, key=lambda id_: _hash(job.key, id_))
        return found


def _hash(key: str, id_: str) -> bytes:
    return sha256(f"{key}|{id_}".encode()).digest()
