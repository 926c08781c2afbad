"""One simulated run of a fleet under one load, placed by one side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from statistics import fmean

from bench.catalog import Say
from bench.placement.pool import run_all
from bench.rounds import percentile
from bench.sim.loop import Loop
from bench.sim.machine import Machine
from bench.sim.peers import AtRandom, Central, LeastRequests, Literal, PowerOfTwo, RoundRobin
from bench.sim.placing import Nxs
from bench.sim.work import of_scv, renewal, take
from bench.sim.world import Placing, World
from nxs_tasks.settings import load

SEEDS = range(1, 6)
#: Mean service time, s, on a machine of speed 1.
SERVICE_S = 1.0
SETTINGS = load({}, env={}).settings

NXS, UNCHECKED, CENTRAL = "NXS", "unchecked", "central"
LITERAL, POWER_OF_TWO, LEAST = "literal", "P2C", "least"
AT_RANDOM, ROUND_ROBIN = "random", "robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is run. `side` is one of `SIDES`.

    `age` is how old metrics may be, s: the period of heartbeats, and of the looks of those who look
    for themselves, to whom 0 is live.
    """

    side: str
    seed: int
    speeds: tuple[float, ...]
    slots: int
    jobs: int
    rho: float
    scv: float  # of the service times
    burst: float = 1.0  # SCV of the gaps between arrivals
    age: float = 5.0
    submitters: int = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it, s."""

    mean_wait: float
    p99_sojourn: float


#: How a side places: in a world, with chance of its own, over metrics of so many seconds.
Make = Callable[[World, Random, float], Placing]

SIDES: Mapping[str, Make] = {
    NXS: lambda world, rng, age: Nxs(world, SETTINGS),
    UNCHECKED: lambda world, rng, age: Nxs(world, SETTINGS),
    CENTRAL: lambda world, rng, age: Central(),
    LITERAL: lambda world, rng, age: Literal(world, SETTINGS, age),
    POWER_OF_TWO: PowerOfTwo,
    LEAST: LeastRequests,
    AT_RANDOM: lambda world, rng, age: AtRandom(world, rng),
    ROUND_ROBIN: lambda world, rng, age: RoundRobin(world),
}


def measure(trial: Trial) -> Seen:
    """Run it. The same seed has the same jobs, whoever places them."""
    speeds = list(trial.speeds)
    # The lower id wins a tie: it must not be the faster machine by its number.
    Random(trial.seed).shuffle(speeds)
    width = len(str(len(speeds)))
    machines = [Machine(f"w{n:0{width}}", slots=trial.slots, speed=s) for n, s in enumerate(speeds)]
    world = World(Loop(), machines, Random(trial.seed), checked=trial.side == NXS)
    rate = trial.rho * trial.slots * sum(speeds) / SERVICE_S
    gap, service = of_scv(1.0 / rate, trial.burst), of_scv(SERVICE_S, trial.scv)
    jobs = take(renewal(Random(f"jobs {trial.seed}"), gap, service), trial.jobs)
    make = SIDES[trial.side]
    placings = [
        make(world, Random(f"{trial.seed} {n}"), trial.age) for n in range(trial.submitters)
    ]
    world.submit(jobs, placings)
    world.beat_every(trial.age or SETTINGS.heartbeat_period)
    world.loop.run()
    return Seen(fmean(job.wait for job in jobs), percentile([job.sojourn for job in jobs], 99))


def measure_all(trials: Iterable[Trial], say: Say, name: str) -> dict[Trial, Seen]:
    """All of them, on all processors."""
    return run_all(measure, trials, say, name, chunk=4)
