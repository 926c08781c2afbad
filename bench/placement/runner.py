"""All scenarios of the bench `placement`, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from bench.catalog import Run, Say
from bench.figure import Figure
from bench.placement import backlog, caches, herd, holes, speeds, workers

SCENARIOS: tuple[Run, ...] = (
    herd.run,
    speeds.run,
    backlog.run,
    caches.run,
    holes.run,
    workers.run,
)


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    for scenario in SCENARIOS:
        yield from scenario(say)
