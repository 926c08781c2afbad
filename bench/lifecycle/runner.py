"""All scenarios of the bench `lifecycle`, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from bench.catalog import Run, Say
from bench.figure import Figure
from bench.lifecycle import simulated

SCENARIOS: tuple[Run, ...] = (simulated.run,)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    for scenario in SCENARIOS:
        yield from scenario(say)
