"""S5: tasks that want a warm cache. How many find it, and what do they wait for that?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.placement.pool import run_all
from bench.placement.spread import Spread, alone
from bench.placement.trial import AT_RANDOM, NXS, SEEDS
from bench.rounds import percentile
from bench.sim.fleet import Fleet
from bench.sim.keys import name_keys, zipf
from bench.sim.loop import Loop
from bench.sim.machine import Machine
from bench.sim.migrations import Migrations
from bench.sim.peers import AtRandom, Rendezvous
from bench.sim.placing import Nxs
from bench.sim.work import Job, gamma, poisson, take
from bench.sim.world import World
from nxs_tasks.settings import Settings, load

INSTANCES, SLOTS, CACHED = 8, 2, 2
MODELS, TOP = 87, 0.31
#: Service times, s, and their SCV; what a cold cache adds, s.
SERVICE_S, SCV, RELOAD_S = 28.7, 0.53, 10.0
RHO = 0.8
JOBS = 8_000
#: Share of the jobs that only fill the caches.
FILLING = 0.1
#: Share of the jobs that want what one of the last four wanted.
MIXES = {"repeats": 0.6, "Zipf": 0.0}
WAIT = load({}, env={}).settings.affinity_wait
#: Where hits count more than time.
SHORTER = 2.0
HASH, PLAIN = "hash", "no keys"

GOAL_HITS = Goal("value", ">=", 81.0)
GOAL_LOAD = Goal("value", "<=", 1.25)
BETTER = Goal("ratio", "<=", 1.00)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """What is run: one side, one mix."""

    side: str
    repeat: float
    seed: int = 0
    wait: float = WAIT
    submitters: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of it."""

    hits: float  # %
    load: float  # jobs of the busiest instance, by the mean of all
    mean_s: float  # from arrival to end
    p99_s: float


class Keyless(Nxs):
    """NXS, where the tasks declare no affinity: cold caches cost all the same."""

    def choose(self, job: Job) -> str | None:
        """As for any task."""
        key, job.key = job.key, ""
        chosen = super().choose(job)
        job.key = key
        return chosen


def settings_of(trial: Warm) -> Settings:
    """The defaults, but what the caches hold."""
    return load({"affinity_keys": CACHED, "affinity_wait": trial.wait}, env={}).settings


def measure(trial: Warm) -> Found:
    """Run it. The same seed has the same jobs, whoever places them."""
    seed = trial.seed
    machines = [Machine(f"w{n}", slots=SLOTS, cached=CACHED) for n in range(INSTANCES)]
    rate = RHO * INSTANCES * SLOTS / SERVICE_S
    jobs = take(poisson(Random(f"jobs {seed}"), rate, gamma(SERVICE_S, SCV)), JOBS)
    name_keys(jobs, zipf(MODELS, TOP), Random(f"keys {seed}"), repeat=trial.repeat)
    world = WORLDS[trial.side](machines, trial, jobs)
    world.loop.run()
    counted = jobs[int(FILLING * JOBS) :]
    by_machine = Counter(job.machine for job in counted)
    sojourns = [job.sojourn for job in counted]
    return Found(
        hits=100.0 * fmean(job.hit for job in counted),
        load=max(by_machine.values()) * INSTANCES / len(counted),
        mean_s=fmean(sojourns),
        p99_s=percentile(sojourns, 99),
    )


def _nxs(machines: list[Machine], trial: Warm, jobs: list[Job]) -> World:
    settings, rng = settings_of(trial), Random(trial.seed)
    # Without keys nobody remembers any: what is claimed and stolen is the oldest.
    keyed = trial.side == NXS
    fleet = Fleet(Loop(), machines, rng, settings, keyed=keyed, reload_s=RELOAD_S)
    make = Nxs if keyed else Keyless
    fleet.submit(jobs, [make(fleet, settings) for _ in range(trial.submitters)])
    fleet.beat_every(settings.heartbeat_period)
    Migrations(fleet).begin(rng.uniform(0.0, settings.rebalance_period))
    return fleet


def _random(machines: list[Machine], trial: Warm, jobs: list[Job]) -> World:
    world = World(Loop(), machines, Random(trial.seed), reload_s=RELOAD_S)
    world.submit(jobs, [AtRandom(world, Random(f"{trial.seed}"))])
    return world


def _hash(machines: list[Machine], trial: Warm, jobs: list[Job]) -> World:
    world = World(Loop(), machines, Random(trial.seed), reload_s=RELOAD_S)
    world.submit(jobs, [Rendezvous(world)])
    return world


WORLDS: Mapping[str, Callable[[list[Machine], Warm, list[Job]], World]] = {
    NXS: _nxs,
    PLAIN: _nxs,
    AT_RANDOM: _random,
    HASH: _hash,
}


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    ours = {mix: Warm(side=NXS, repeat=repeat) for mix, repeat in MIXES.items()}
    sides = [replace(trial, side=side) for trial in ours.values() for side in WORLDS]
    others = [t for trial in ours.values() for t in _others(trial)]
    seen = run_all(measure, (s for t in (*sides, *others) for s in _seeds(t)), say, "S5")
    for mix, trial in ours.items():
        yield from _figures(f"S5 {mix}", trial, seen, GOAL_HITS if trial.repeat else None)


def _others(trial: Warm) -> tuple[Warm, Warm]:
    return replace(trial, wait=SHORTER), replace(trial, submitters=3)


def _figures(
    name: str, trial: Warm, seen: Mapping[Warm, Found], hits: Goal | None
) -> Iterator[Figure]:
    def of(what: str, trial: Warm) -> list[float]:
        return [getattr(seen[seeded], what) for seeded in _seeds(trial)]

    shorter, several = _others(trial)
    yield alone(of("hits", trial), f"{name} hits", "%", hits)
    yield alone(of("load", trial), f"{name} load", "× mean", GOAL_LOAD)
    yield alone(of("hits", several), f"{name} hits, 3 submitters", "%")
    yield alone(of("hits", shorter), f"{name} hits, wait {SHORTER:.0f}", "%")
    for side in (AT_RANDOM, HASH, PLAIN):
        other = replace(trial, side=side)
        yield alone(of("hits", other), f"{name} hits {side}", "%")
        yield alone(of("load", other), f"{name} load {side}", "× mean")
        p99 = Spread(of("p99_s", trial), of("p99_s", other))
        yield p99.figure(f"{name} p99", "s", side, None if side == PLAIN else BETTER)
    p99 = Spread(of("p99_s", shorter), of("p99_s", trial))
    yield p99.figure(f"{name} p99, wait {SHORTER:.0f}", "s", f"wait {WAIT:.0f}")
    mean = Spread(of("mean_s", trial), of("mean_s", replace(trial, side=PLAIN)))
    yield mean.figure(f"{name} mean", "s", PLAIN)


def _seeds(trial: Warm) -> list[Warm]:
    return [replace(trial, seed=seed) for seed in SEEDS]
