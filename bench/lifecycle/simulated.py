"""All that is simulated of the bench `lifecycle`, one scenario after the other."""

from __future__ import annotations

from collections.abc import Iterator

from bench.catalog import Run, Say
from bench.figure import Figure
from bench.lifecycle import crash_loops, deploys, detection, sick_observers

SCENARIOS: tuple[Run, ...] = (detection.run, sick_observers.run, deploys.run, crash_loops.run)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    for scenario in SCENARIOS:
        yield from scenario(say)
