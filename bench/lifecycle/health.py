"""Is who is slow found soon, and nobody who is not?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log, pi, sin, sqrt
from random import Random
from statistics import median

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.lifecycle.patients import Change, Name, Ward
from bench.placement.pool import run_all
from bench.sim.work import Service, exponential
from nxs_tasks.model.state import State
from nxs_tasks.settings import load

SETTINGS = load({}, env={}).settings
SEEDS = range(1, 6)
DAY_S, HOUR_S = 86_400.0, 3_600.0
#: Mean of a task, s, where there are many and where there are few.
BUSY_S, SPARSE_S = 1.0, 6.0
#: When something goes wrong, and when it is over, s.
FROM_S, UNTIL_S, END_S = 3_600.0, 4_500.0, 5_400.0
#: A load that comes and goes: its period, s, and how much longer tasks take at its height.
WAVE_S, HEIGHT = 600.0, 0.5
#: How many times longer in a brown-out; the share that fails here, and everywhere.
SLOW, FAILS, BAD = 10.0, 0.25, 0.3

WELL, BROWN, ALL_SLOW, WAVES = "well", "brown-out", "slow everywhere", "waves"
FAILING, ALL_FAIL = "fails", "fails everywhere"
EXPONENTIAL, LOGNORMAL, TWO_KINDS = "exponential", "lognormal", "two kinds"
SHAPES = (EXPONENTIAL, LOGNORMAL, TWO_KINDS)

FALSE = Goal("value", "<=", 0.01)
NONE = Goal("value", "<=", 0.0)
#: The minute that is looked at, and the heartbeats that have to agree.
SOON = Goal("value", "<=", 60.0 + (SETTINGS.degraded_beats + 1) * SETTINGS.heartbeat_period)
#: One failure in four is no chance after some more runs than that.
LATER = Goal("value", "<=", 2 * SETTINGS.health_window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is run."""

    what: str
    shape: str
    mean_s: float = BUSY_S
    instances: int = 3
    seconds: float = END_S
    seed: int = 1


def service(shape: str, mean: float) -> Service:
    """Draws durations of that mean, s."""
    if shape == EXPONENTIAL:
        return exponential(mean)
    if shape == LOGNORMAL:
        sigma = sqrt(log(1 + 10.0))
        return lambda rng: rng.lognormvariate(log(mean) - sigma**2 / 2, sigma)
    # One in twenty takes half of all time.
    return lambda rng: mean * rng.uniform(0.8, 1.2) * (10.0 if rng.random() < 0.05 else 0.526)


def measure(trial: Trial) -> list[Change]:
    """Run it; who became DEGRADED or ACTIVE, and when."""
    logging.getLogger("nxs_tasks.worker.health").setLevel(logging.ERROR)
    during = _during(trial.what)
    ward = Ward(
        trial.instances,
        [Name("task", service(trial.shape, trial.mean_s), trial.mean_s)],
        Random(f"{trial}"),
        SETTINGS,
        alone=trial.what == WELL,
    )
    if trial.what in (BROWN, ALL_SLOW):
        ward.slowness = lambda at, n: SLOW if during(at, n) else 1.0
    elif trial.what == WAVES:
        ward.slowness = lambda at, n: 1.0 + HEIGHT * max(0.0, sin(2 * pi * at / WAVE_S + n))
    elif trial.what in (FAILING, ALL_FAIL):
        share = FAILS if trial.what == FAILING else BAD
        ward.failures = lambda at, n: share if during(at, n) else 0.01
    return ward.run(trial.seconds)


def _during(what: str) -> Callable[[float, int], bool]:
    everywhere = what in (ALL_SLOW, ALL_FAIL)
    return lambda at, number: FROM_S <= at < UNTIL_S and (everywhere or number == 0)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    days = {
        "sparse": [_well(shape, SPARSE_S, 4, s) for shape in SHAPES for s in SEEDS],
        "busy": [_well(shape, BUSY_S, 1, s) for shape in SHAPES for s in SEEDS],
    }
    others = {
        what: [Trial(what=what, shape=shape, seed=s) for shape in SHAPES for s in SEEDS]
        for what in (BROWN, ALL_SLOW, WAVES, FAILING, ALL_FAIL)
    }
    wanted = [t for some in (*days.values(), *others.values()) for t in some]
    seen = run_all(_measured, wanted, say, "health")
    for name, trials in days.items():
        yield _false(f"health false DEGRADED, {name}", trials, seen)
    for what, name, goal in ((BROWN, BROWN, SOON), (FAILING, "a quarter fails", LATER)):
        yield from _found(name, others[what], seen, goal)
    for what, name in ((ALL_SLOW, "slow everywhere"), (ALL_FAIL, "fails everywhere")):
        yield _of(f"health DEGRADED, {name}", [float(len(seen[t])) for t in others[what]], NONE)
    waves = [float(len(seen[t])) for t in others[WAVES]]
    yield _of("health DEGRADED, load comes and goes", waves, NONE)


def _well(shape: str, mean_s: float, instances: int, seed: int) -> Trial:
    return Trial(
        what=WELL, shape=shape, mean_s=mean_s, instances=instances, seconds=DAY_S, seed=seed
    )


def _measured(trial: Trial) -> tuple[Change, ...]:
    return tuple(measure(trial))


def _false(metric: str, trials: Sequence[Trial], seen: Mapping[Trial, Sequence[Change]]) -> Figure:
    days = sum(trial.instances * trial.seconds / DAY_S for trial in trials)
    times = sum(c.state is State.DEGRADED for trial in trials for c in seen[trial])
    return Figure(bench="lifecycle", metric=metric, value=times / days, unit="a day", goal=FALSE)


def _found(
    name: str, trials: Sequence[Trial], seen: Mapping[Trial, Sequence[Change]], goal: Goal
) -> Iterator[Figure]:
    first = [_first(seen[t], State.DEGRADED, FROM_S) for t in trials]
    yield _of(f"health found, {name}", first, goal, "s", median)
    last = [_first(seen[t], State.ACTIVE, UNTIL_S) for t in trials]
    yield _of(f"health over, {name}", last, None, "s", median)
    # Once there and once back is what it should be.
    more = [float(abs(len(seen[t]) - 2)) for t in trials]
    yield _of(f"health changes too many, {name}", more, NONE)


def _first(changes: Sequence[Change], state: State, since: float) -> float:
    return min((c.at - since for c in changes if c.state is state), default=float("inf"))


def _of(
    metric: str,
    values: Sequence[float],
    goal: Goal | None,
    unit: str = "",
    of: Callable[[Sequence[float]], float] = max,
) -> Figure:
    return Figure(
        bench="lifecycle",
        metric=metric,
        value=of(values),
        unit=unit,
        least=min(values),
        most=max(values),
        goal=goal,
    )
