"""All scenarios of the bench `lifecycle`, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from bench.catalog import Run, Say
from bench.figure import Figure
from bench.lifecycle import health, leaders, rolling, simulated, zombies

SCENARIOS: tuple[Run, ...] = (
    simulated.run,
    health.run,
    leaders.run,
    zombies.run,
    rolling.run,
)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    for scenario in SCENARIOS:
        yield from scenario(say)
