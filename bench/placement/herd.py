"""S1: many submitters, metrics of some age, equal machines. Does everybody run to the same one?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.placement.spread import Spread
from bench.placement.trial import (
    AT_RANDOM,
    CENTRAL,
    LEAST,
    LITERAL,
    NXS,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SEEDS,
    UNCHECKED,
    Seen,
    Trial,
    measure_all,
)

SLOTS = 4
JOBS = 10_000
#: Instances by load: at half load only a small fleet lets anything wait.
INSTANCES: Mapping[float, int] = {0.5: 2, 0.8: 8, 0.9: 16}
EVEN, UNEVEN = 1.0, 10.0
AGES = (1.0, 5.0, 10.0, 30.0)
SUBMITTERS = (1, 3)
#: Where the others are shown.
SHOWN_RHO, SHOWN_AGE = 0.8, 10.0
WATCHING = (LITERAL, POWER_OF_TWO, LEAST)
BLIND = (AT_RANDOM, ROUND_ROBIN)

GOAL = Goal("ratio", "<=", 1.05)
GOAL_LITERAL = Goal("ratio", ">=", 100.0)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    seen = measure_all((t for wanted in _wanted() for t in _seeds(wanted)), say, "S1")
    for side, goal in ((NXS, GOAL), (UNCHECKED, None)):
        spreads = [_beside(replace(trial, side=side), seen) for trial in _combinations()]
        worst = max(spreads, key=lambda spread: spread.ratio)
        yield worst.figure(f"S1 {side} worst", "ms", CENTRAL, goal)
    for trial in _shown():
        spread = _beside(trial, seen)
        if trial.side == LITERAL and trial.age == SHOWN_AGE and trial.scv == EVEN:
            ours = _waits(replace(trial, side=NXS), seen)
            yield Spread(spread.ours, ours).figure(_name(trial), "ms", NXS, GOAL_LITERAL)
        yield spread.figure(_name(trial), "ms", CENTRAL)


def _combinations() -> Iterator[Trial]:
    for rho, scv, age, submitters in product(INSTANCES, (EVEN, UNEVEN), AGES, SUBMITTERS):
        yield _trial(rho, scv, age, submitters)


def _trial(rho: float, scv: float, age: float, submitters: int) -> Trial:
    return Trial(
        side=NXS,
        seed=0,
        speeds=(1.0,) * INSTANCES[rho],
        slots=SLOTS,
        jobs=JOBS,
        rho=rho,
        scv=scv,
        age=age,
        submitters=submitters,
    )


def _shown() -> Iterator[Trial]:
    ages = [(EVEN, age) for age in AGES]
    for side, (scv, age) in product(WATCHING, [*ages, (UNEVEN, SHOWN_AGE)]):
        yield replace(_trial(SHOWN_RHO, scv, age, 1), side=side)
    for side, scv in product(BLIND, (EVEN, UNEVEN)):
        yield replace(_trial(SHOWN_RHO, scv, SHOWN_AGE, 1), side=side)


def _wanted() -> Iterator[Trial]:
    for trial in _combinations():
        yield from (trial, replace(trial, side=UNCHECKED), _central(trial))
    yield from _shown()


def _central(trial: Trial) -> Trial:
    # It looks at nothing, and nobody chooses: one run serves all ages and submitters.
    return replace(trial, side=CENTRAL, age=AGES[0], submitters=1)


def _seeds(trial: Trial) -> list[Trial]:
    return [replace(trial, seed=seed) for seed in SEEDS]


def _waits(trial: Trial, seen: Mapping[Trial, Seen]) -> list[float]:
    return [seen[seeded].mean_wait * 1000 for seeded in _seeds(trial)]


def _beside(trial: Trial, seen: Mapping[Trial, Seen]) -> Spread:
    return Spread(_waits(trial, seen), _waits(_central(trial), seen))


def _name(trial: Trial) -> str:
    if trial.scv == UNEVEN:
        return f"S1 {trial.side} uneven"
    return f"S1 {trial.side} {trial.age:.0f} s" if trial.side in WATCHING else f"S1 {trial.side}"
