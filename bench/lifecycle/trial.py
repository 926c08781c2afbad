"""One day of one fleet under one fault, judged by NXS and by others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.catalog import Say
from bench.lifecycle.faults import FAULTS
from bench.lifecycle.fleet import EPOCH_S, SETTINGS, Fleet, Verdicts
from bench.lifecycle.node import short, zipf
from bench.lifecycle.watchers import (
    LONG_PAUSE_S,
    PAUSE_S,
    Clock,
    Intervals,
    Kubernetes,
    Phi,
    Timeout,
)
from bench.placement.pool import run_all
from bench.rounds import percentile

SEEDS = range(1, 6)
SIZE, DAY_S = 50, 86_400.0
FIXED, PHI, PHI_LONG, KUBERNETES = "30 s", "phi", f"phi, pause {LONG_PAUSE_S:.0f} s", "Kubernetes"
PEERS = (FIXED, PHI, PHI_LONG, KUBERNETES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is run."""

    fault: str
    loss: float = 0.0  # share of the heartbeats
    zipf: bool = False  # heartbeats are late by Zipf's law
    seed: int = 0
    size: int = SIZE
    seconds: float = DAY_S
    skip: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """What one side said of it."""

    deaths: int
    suspicions: int
    p50_s: float
    p99_s: float


def fleet_of(trial: Trial) -> Fleet:
    """The fleet after it."""
    delay = zipf if trial.zipf else short
    fleet = Fleet(trial.seed, trial.size, loss=trial.loss, delay=delay, skip=trial.skip)
    start = fleet.begin()
    steps = FAULTS[trial.fault](fleet, start, EPOCH_S + trial.seconds)
    intervals = Intervals(fleet.names, SETTINGS.heartbeat_period)
    fleet.watch(
        {
            FIXED: Timeout(fleet.names, Clock(steps)),
            PHI: Phi(intervals, PAUSE_S),
            PHI_LONG: Phi(intervals, LONG_PAUSE_S),
            KUBERNETES: Kubernetes(fleet.names),
        }
    )
    fleet.run(trial.seconds)
    return fleet


def measure(trial: Trial) -> dict[str, Told]:
    """By side."""
    return {side: _told(verdicts) for side, verdicts in fleet_of(trial).verdicts.items()}


def _told(verdicts: Verdicts) -> Told:
    took = verdicts.detected_s
    nan = float("nan")
    p50, p99 = (median(took), percentile(took, 99)) if len(took) > 1 else (nan, nan)
    return Told(verdicts.deaths, verdicts.suspicions, p50, p99)


def measure_all(trials: Iterable[Trial], say: Say, name: str) -> Mapping[Trial, dict[str, Told]]:
    """All of them, on all processors."""
    return run_all(measure, trials, say, name)
