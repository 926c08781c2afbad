"""The bench `submit`: what placing adds to `delay()`, and what one decision costs."""

from __future__ import annotations

from collections.abc import Iterator

from bench import decision, delay
from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.server import own_server

SIZES = (3, 1000)
#: So many that every task is placed on an instance, although none is ever run.
PLENTY = 1_000_000
FEW = 4
ROUNDS = 15
ROUNDS_WITHOUT_GOAL = 7
LOOKS = 20

RATIO = Goal("ratio", "<=", 1.10)
DECISION_US = Goal("value", "<=", 20.0)


def run(say: Say) -> Iterator[Figure]:
    """All figures, on a server of its own."""
    with own_server() as url:
        yield from delay.measure_noise(ROUNDS_WITHOUT_GOAL, url, say)
        for size in SIZES:
            yield from delay.measure(_free(size), url, say)
        for size in SIZES:
            yield from delay.measure(_busy(size), url, say)
        for size in SIZES:
            goal = DECISION_US if size == max(SIZES) else None
            yield from decision.measure(size, url, say, slots=PLENTY, looks=LOOKS, goal=goal)


def _free(size: int) -> delay.Case:
    return delay.Case(instances=size, slots=PLENTY, busy=False, rounds=ROUNDS, goal=RATIO)


def _busy(size: int) -> delay.Case:
    return delay.Case(instances=size, slots=FEW, busy=True, rounds=ROUNDS_WITHOUT_GOAL)
