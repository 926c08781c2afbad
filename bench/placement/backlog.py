"""S4: a backlog in front of one of four instances. How soon is it done, and by what moves?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.placement.pool import run_all
from bench.placement.spread import Spread, alone
from bench.placement.trial import SEEDS, SETTINGS
from bench.sim.fleet import Fleet
from bench.sim.loop import Loop
from bench.sim.machine import Machine
from bench.sim.migrations import Migrations
from bench.sim.work import Job, at_once, constant

TASKS, SLOTS, INSTANCES = 10_000, 4, 4
#: When the fifth instance joins and one of the first leaves, s.
JOINS_AT, LEAVES_AT = 120.0, 240.0

GOAL = Goal("ratio", "<=", 1.05)
GOAL_MOVED = Goal("ratio", "<=", 1.30)
NONE = Goal("value", "<=", 0.0)
GOAL_GAP = Goal("value", ">=", SETTINGS.migrate_every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """What is run."""

    seed: int
    changes: bool = False  # one joins and one leaves
    steals: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What came of it; times in s."""

    took: float
    moved: int  # tasks, by migrations
    stolen: int
    returned: int
    inversions: int
    least_gap: float


class First:
    """All go to one, whatever it has."""

    def choose(self, job: Job) -> str | None:
        """The first one."""
        return "w0"


class NoThieves(Fleet):
    """A fleet of which nobody takes from the line of another."""

    def _look(self, machine: Machine) -> None:
        machine.victim = None


def drain(trial: Drain) -> Drained:
    """Run it."""
    rng = Random(trial.seed)
    machines = [Machine(f"w{n}", slots=SLOTS) for n in range(INSTANCES)]
    fleet = (Fleet if trial.steals else NoThieves)(Loop(), machines, rng, SETTINGS)
    fleet.submit(at_once(TASKS, constant(1.0), rng), [First()])
    fleet.beat_every(SETTINGS.heartbeat_period)
    migrations = Migrations(fleet)
    migrations.begin(rng.uniform(0.0, SETTINGS.rebalance_period))
    if trial.changes:
        fleet.loop.at(JOINS_AT, fleet.add, Machine("w4", slots=SLOTS))
        fleet.loop.at(LEAVES_AT, fleet.leave, machines[1])
    fleet.loop.run()
    return Drained(
        took=max(job.ended for job in fleet.done),
        moved=migrations.moved,
        stolen=fleet.stolen,
        returned=migrations.returned,
        inversions=migrations.inversions,
        least_gap=migrations.least_gap_s,
    )


def bound(trial: Drain) -> float:
    """The shortest time, s: no slot is ever free."""
    rate = SLOTS * INSTANCES
    more = SLOTS * (LEAVES_AT - JOINS_AT) if trial.changes else 0.0
    return (TASKS - more) / rate


def least_moved(trial: Drain) -> float:
    """What has to leave the first instance to be done by then: Σ max(0, queued − mean)."""
    return TASKS - SLOTS * bound(trial)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    cases = {"four stay": Drain(seed=0), "one joins, one leaves": Drain(seed=0, changes=True)}
    alone_too = [t for case in cases.values() for t in (case, replace(case, steals=False))]
    seen = run_all(drain, (s for trial in alone_too for s in _seeds(trial)), say, "S4")
    for name, trial in cases.items():
        found = [seen[seeded] for seeded in _seeds(trial)]
        bounds, least = [bound(trial)] * len(found), [least_moved(trial)] * len(found)
        yield Spread([d.took for d in found], bounds).figure(f"S4 {name}", "s", "bound", GOAL)
        by_migrations = [seen[s].took for s in _seeds(replace(trial, steals=False))]
        yield Spread(by_migrations, bounds).figure(f"S4 {name}, no stealing", "s", "bound")
        moved = Spread([d.moved + d.stolen for d in found], least)
        yield moved.figure(f"S4 {name}: moved", "tasks", "least", GOAL_MOVED)
        yield alone([d.stolen for d in found], f"S4 {name}: of these stolen", "tasks")
    yield from _never(list(seen.values()))


def _never(found: list[Drained]) -> Iterator[Figure]:
    """The worst of all runs."""
    yield alone([d.returned for d in found], "S4 came back", "tasks", NONE, max)
    yield alone([d.inversions for d in found], "S4 inversions", "tasks", NONE, max)
    yield alone([d.least_gap for d in found], "S4 between two migrations", "s", GOAL_GAP, min)


def _seeds(trial: Drain) -> list[Drain]:
    return [replace(trial, seed=seed) for seed in SEEDS]
