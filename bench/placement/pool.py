"""Runs what is simulated on all processors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import cpu_count
from typing import TypeVar

from bench.catalog import Say

Trial = TypeVar("Trial")
Seen = TypeVar("Seen")


def run_all(
    measure: Callable[[Trial], Seen], trials: Iterable[Trial], say: Say, name: str, chunk: int = 1
) -> dict[Trial, Seen]:
    """Each of them once; `measure` is a function of a module. A process gets `chunk` at a time."""
    wanted = list(dict.fromkeys(trials))
    seen = {}
    # Spawned: the progress line is a thread, and a fork would copy it half-way.
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        for trial, found in zip(wanted, pool.map(measure, wanted, chunksize=chunk), strict=True):
            seen[trial] = found
            say(f"{name}: run {len(seen)} of {len(wanted)}")
    return seen
