"""A fleet whose machines are simulated and whose health is judged by the real code.

Each slot of a machine runs one task after the other: a gap, then a task, so that `rho` of its time
it is busy. Each machine counts in its own `Tally` and looks with its own `Health` at each
heartbeat; they tell each other by periods, as the store has them. An instance is DEGRADED after
`degraded_beats` unhealthy heartbeats in a row, ACTIVE after `recover_beats` healthy ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.sim.work import Service
from nxs_tasks.model.runs import Runs
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store.runs import KEPT_S, PERIOD_S
from nxs_tasks.worker.health import Health
from nxs_tasks.worker.tally import Tally

#: How many times longer a task takes than it usually does; by time, s, and number of the instance.
Slowness = Callable[[float, int], float]
#: Likewise the share that fails.
Failures = Callable[[float, int], float]


@dataclass(frozen=True, slots=True)
class Name:
    """One name of tasks."""

    name: str
    service: Service
    mean_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """An instance has changed its state."""

    at: float
    instance: int
    state: State
    why: str


@dataclass(slots=True, eq=False)
class _Patient:
    number: int
    health: Health
    beat_at: float
    slots: list[tuple[float, float, str]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    state: State = State.ACTIVE
    sick: int = 0
    well: int = 0


def _never(at: float, instance: int) -> float:
    return 0.0


def _usual(at: float, instance: int) -> float:
    return 1.0


@dataclass(slots=True)
class Ward:
    """The fleet; `run` lets time pass."""

    count: int
    kinds: Sequence[Name]
    rng: Random
    settings: Settings
    slots: int = 4
    rho: float = 0.8
    slowness: Slowness = _usual
    failures: Failures = _never
    alone: bool = False  # nobody hears of the others
    changes: list[Change] = field(default_factory=list)
    _told: dict[int, dict[int, dict[str, Runs]]] = field(default_factory=dict)

    def run(self, seconds: float) -> list[Change]:
        """From 0 on; what changed."""
        beats: list[tuple[float, int]] = []
        patients = []
        for number in range(self.count):
            at = self.rng.uniform(0.0, self.settings.heartbeat_period)
            patient = _Patient(number, Health(self.settings, 0.0), at)
            patient.slots = [self._next(0.0, number) for _ in range(self.slots)]
            heapq.heapify(patient.slots)
            patients.append(patient)
            beats.append((at, number))
        heapq.heapify(beats)
        while beats[0][0] < seconds:
            at, number = beats[0]
            self._beat(patients[number], at)
            heapq.heapreplace(beats, (at + self.settings.heartbeat_period, number))
        return self.changes

    def _next(self, now: float, number: int) -> tuple[float, float, str]:
        """When the next task of a slot ends, how long it took, its name."""
        kind = self.kinds[0] if len(self.kinds) == 1 else self.rng.choice(self.kinds)
        gap = self.rng.expovariate(self.rho / (1.0 - self.rho) / kind.mean_s)
        took = kind.service(self.rng) * self.slowness(now + gap, number)
        return now + gap + took, took, kind.name

    def _beat(self, patient: _Patient, now: float) -> None:
        slots, number = patient.slots, patient.number
        while slots[0][0] <= now:
            ended, took, name = slots[0]
            if self.rng.random() < self.failures(ended, number):
                patient.tally.failure(name)
            else:
                patient.tally.success(name, took)
            heapq.heapreplace(slots, self._next(ended, number))
        taken = patient.tally.take()
        patient.tally.forget_rows()
        self._report(number, patient.health.told(taken), now)
        patient.health.add(taken, now)

        def ask(names: Sequence[str], back_s: float) -> Mapping[str, Runs]:
            if self.alone:
                return {}
            return {name: self._elsewhere(number, name, now - back_s) for name in names}

        self._note(patient, patient.health.look(patient.state, ask, now), now)

    def _report(self, number: int, told: Mapping[str, Runs], now: float) -> None:
        period = int(now // PERIOD_S)
        for old in [p for p in self._told if p < period - KEPT_S / PERIOD_S]:
            del self._told[old]
        ends = self._told.setdefault(period, {}).setdefault(number, {})
        for name, runs in told.items():
            ends[name] = _sum(ends.get(name, Runs()), runs)

    def _elsewhere(self, number: int, name: str, since: float) -> Runs:
        found = Runs()
        for period, by_instance in self._told.items():
            if period >= since // PERIOD_S:
                for other, ends in by_instance.items():
                    if other != number and name in ends:
                        found = _sum(found, ends[name])
        return found

    def _note(self, patient: _Patient, unhealthy: str, now: float) -> None:
        patient.sick = patient.sick + 1 if unhealthy else 0
        patient.well = 0 if unhealthy else patient.well + 1
        settings, state = self.settings, patient.state
        if state is State.ACTIVE and patient.sick >= settings.degraded_beats:
            state = State.DEGRADED
        elif state is State.DEGRADED and patient.well >= settings.recover_beats:
            state = State.ACTIVE
        if state is not patient.state:
            patient.state = state
            self.changes.append(Change(now, patient.number, state, unhealthy))


def _sum(a: Runs, b: Runs) -> Runs:
    return Runs(
        a.succeeded + b.succeeded, a.failed + b.failed, a.ranked + b.ranked, a.ranks + b.ranks
    )
