"""S7: how soon a loss is found, and who is given up though he lives, while heartbeats are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.lifecycle.figures import figure
from bench.lifecycle.fleet import OURS, SETTINGS
from bench.lifecycle.trial import PEERS, SEEDS, SIZE, Told, Trial, measure_all

LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2)
#: Where the goal for living ones is.
JUDGED = 0.1
GOAL_P99 = Goal("value", "<=", 31.0 + SETTINGS.lifecycle_period)
GOAL_DEATHS = Goal("value", "<=", 0.01)

TRIALS = {f"{loss:.0%} lost": Trial(fault="losses", loss=loss) for loss in LOSSES}
TRIALS[f"{JUDGED:.0%} lost, Zipf"] = Trial(fault="losses", loss=JUDGED, zipf=True)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    seeded = [replace(t, seed=seed) for t in TRIALS.values() for seed in SEEDS]
    seen = measure_all(seeded, say, "S7 detection")
    for name, trial in TRIALS.items():
        told = [seen[replace(trial, seed=seed)] for seed in SEEDS]
        ours = [by_side[OURS] for by_side in told]
        goal = GOAL_DEATHS if trial.loss == JUDGED else None
        yield figure(f"{name}: found, p50", [t.p50_s for t in ours], "s")
        yield figure(f"{name}: found, p99", [t.p99_s for t in ours], "s", GOAL_P99, of=max)
        yield figure(f"{name}: false deaths", _a_day(ours), "a day", goal, of=max)
        yield figure(f"{name}: false suspicions", [t.suspicions / SIZE for t in ours], "a day")
        if trial.loss in (0.0, JUDGED):
            for peer in PEERS:
                yield from _beside(name, ours, peer, [by_side[peer] for by_side in told])


def _beside(name: str, ours: list[Told], peer: str, theirs: list[Told]) -> Iterator[Figure]:
    p99 = (peer, [t.p99_s for t in theirs])
    yield figure(f"{name}: found, p99", [t.p99_s for t in ours], "s", of=max, peer=p99)
    deaths = (peer, _a_day(theirs))
    yield figure(f"{name}: false deaths", _a_day(ours), "a day", of=max, peer=deaths)


def _a_day(told: list[Told]) -> list[float]:
    """Of living ones, for each instance: a trial is a day."""
    return [t.deaths / SIZE for t in told]
