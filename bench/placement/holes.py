"""S6: an instance that fails what it takes at once, or has become slow. How much goes to it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.placement.pool import run_all
from bench.placement.spread import Spread, alone
from bench.placement.trial import AT_RANDOM, LEAST, NXS, SEEDS, SETTINGS
from bench.rounds import percentile
from bench.sim.ejections import Ejections
from bench.sim.fleet import Fleet
from bench.sim.loop import Loop
from bench.sim.machine import Machine
from bench.sim.migrations import Migrations
from bench.sim.peers import AtRandom, LeastRequests
from bench.sim.placing import Nxs
from bench.sim.work import exponential, poisson, take
from bench.sim.world import Placing, World

INSTANCES, SLOTS = 8, 4
RHO, SERVICE_S = 0.6, 1.0
JOBS = 20_000
#: From when on one of them is ill, s: until then all are well.
FROM_S = 60.0
#: How soon it fails, s, or how fast it is.
FAILS_AFTER_S, SLOW = 0.01, 0.1
#: A task that fails everywhere: its name, and its share of the work.
BAD, SHARE = "bad", 0.1
TASKS = ("task", BAD)

FAILING, SLOWED, WELL = "fails", "slow", "well"
KEPT = "none ejected"

GOAL_LOST = Goal("value", "<=", 1.0)
GOAL_BEFORE = Goal("value", "<=", 20.0)
NONE = Goal("value", "<=", 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ill:
    """What is run. `what` is wrong with one instance from `since` on, s."""

    side: str
    what: str = FAILING
    since: float = FROM_S
    bad: bool = False  # some tasks fail everywhere
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Became:
    """What came of it."""

    lost: float  # % of all tasks, failed where only this instance fails
    before: int  # of these, before it was ejected for the first time
    ejections: int
    p99_s: float  # from arrival to end


def measure(trial: Ill) -> Became:
    """Run it. The same seed has the same jobs, whoever places them."""
    seed = trial.seed
    machines = [Machine(f"w{n}", slots=SLOTS, tasks=TASKS) for n in range(INSTANCES)]
    rate = RHO * INSTANCES * SLOTS / SERVICE_S
    jobs = take(poisson(Random(f"jobs {seed}"), rate, exponential(SERVICE_S)), JOBS)
    names = Random(f"names {seed}")
    for job in jobs:
        job.bad = trial.bad and names.random() < SHARE
        job.task = BAD if job.bad else job.task
    world, placing, ejections = _side(trial, machines)
    world.submit(jobs, [placing])
    world.beat_every(SETTINGS.heartbeat_period)
    ill = Random(f"ill {seed}").choice(machines)
    world.loop.at(trial.since, _fall_ill, ill, trial.what)
    world.loop.run()
    lost = [job for job in jobs if job.failed and not job.bad]
    times = ejections.times if ejections is not None else []
    first = min((at for at, _ in times), default=float("inf"))
    return Became(
        lost=100.0 * len(lost) / JOBS,
        before=sum(job.started <= first for job in lost),
        ejections=len(times),
        p99_s=percentile([job.sojourn for job in jobs if not job.failed], 99),
    )


def _side(trial: Ill, machines: list[Machine]) -> tuple[World, Placing, Ejections | None]:
    rng, chance = Random(trial.seed), Random(f"{trial.seed}")
    if trial.side in (NXS, KEPT):
        fleet = Fleet(Loop(), machines, rng, SETTINGS)
        Migrations(fleet).begin(rng.uniform(0.0, SETTINGS.rebalance_period))
        ejections = Ejections(fleet) if trial.side == NXS else None
        return fleet, Nxs(fleet, SETTINGS), ejections
    world = World(Loop(), machines, rng)
    placing = AtRandom(world, chance) if trial.side == AT_RANDOM else LeastRequests(world, chance)
    return world, placing, None


def _fall_ill(machine: Machine, what: str) -> None:
    if what == FAILING:
        machine.fails_after = FAILS_AFTER_S
    elif what == SLOWED:
        machine.speed = SLOW


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    sides = (NXS, KEPT, AT_RANDOM, LEAST)
    fails = {side: Ill(side=side) for side in sides}
    slow = {side: Ill(side=side, what=SLOWED) for side in sides if side != KEPT}
    first = Ill(side=NXS, since=0.0)
    well = Ill(side=NXS, what=WELL, bad=True)
    both = Ill(side=NXS, bad=True)
    wanted = (*fails.values(), *slow.values(), first, well, both)
    seen = run_all(measure, (s for trial in wanted for s in _seeds(trial)), say, "S6")
    for side in (AT_RANDOM, LEAST, KEPT):
        lost = Spread(_of("lost", fails[NXS], seen), _of("lost", fails[side], seen))
        yield lost.figure("S6 lost", "%", side, GOAL_LOST)
    yield alone(_of("before", fails[NXS], seen), "S6 before it stops", "tasks", GOAL_BEFORE, max)
    yield alone(_of("ejections", fails[NXS], seen), "S6 ejections", "")
    yield alone(_of("lost", first, seen), "S6 lost, ill from the start", "%")
    yield alone(_of("lost", both, seen), "S6 lost, and a bad task", "%", GOAL_LOST)
    yield alone(_of("ejections", well, seen), "S6 ejections for a bad task", "", NONE, max)
    for side in (AT_RANDOM, LEAST):
        p99 = Spread(_of("p99_s", slow[NXS], seen), _of("p99_s", slow[side], seen))
        yield p99.figure("S6 slow: p99", "s", side)


def _of(what: str, trial: Ill, seen: Mapping[Ill, Became]) -> list[float]:
    return [getattr(seen[seeded], what) for seeded in _seeds(trial)]


def _seeds(trial: Ill) -> list[Ill]:
    return [replace(trial, seed=seed) for seed in SEEDS]
