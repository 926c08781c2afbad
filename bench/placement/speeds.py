"""S3: machines of unequal speed. Does a long task end up on a slow one more often than it must?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.placement.spread import Spread
from bench.placement.trial import (
    CENTRAL,
    LEAST,
    NXS,
    POWER_OF_TWO,
    SEEDS,
    Seen,
    Trial,
    measure_all,
)

SPEEDS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5)
SLOTS = 2
RHO = 0.8
#: Many: who gets the slow machine is chance, and the 99th percentile shows it.
JOBS = 100_000
SUBMITTERS = 3
BURSTS = {"steady": 1.0, "bursts": 10.0}
SCVS = {"even": 0.5, "uneven": 10.0}

GOAL = Goal("ratio", "<=", 1.02)
BETTER = Goal("ratio", "<=", 1.00)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    loads = {
        f"S3 {burst} {tasks}": _trial(BURSTS[burst], SCVS[tasks])
        for burst in BURSTS
        for tasks in SCVS
    }
    sides = (NXS, CENTRAL, POWER_OF_TWO, LEAST)
    wanted = [_by(side, trial) for trial in loads.values() for side in sides]
    seen = measure_all((seeded for trial in wanted for seeded in _seeds(trial)), say, "S3")
    for name, trial in loads.items():
        yield _beside(trial, CENTRAL, seen).figure(name, "s", CENTRAL, GOAL)
        for peer in (POWER_OF_TWO, LEAST):
            yield _beside(trial, peer, seen).figure(name, "s", peer, BETTER)


def _trial(burst: float, scv: float) -> Trial:
    return Trial(
        side=NXS,
        seed=0,
        speeds=SPEEDS,
        slots=SLOTS,
        jobs=JOBS,
        rho=RHO,
        scv=scv,
        burst=burst,
        submitters=SUBMITTERS,
    )


def _by(side: str, trial: Trial) -> Trial:
    # The others see everything as it is now: as strong as they can be.
    return trial if side == NXS else replace(trial, side=side, age=0.0)


def _seeds(trial: Trial) -> list[Trial]:
    return [replace(trial, seed=seed) for seed in SEEDS]


def _beside(trial: Trial, peer: str, seen: dict[Trial, Seen]) -> Spread:
    ours, others = (
        [seen[seeded].p99_sojourn for seeded in _seeds(_by(side, trial))] for side in (NXS, peer)
    )
    return Spread(ours, others)
