"""How the bench judges the ticks that have arrived."""

from __future__ import annotations

import pytest

from bench.lifecycle.ticks import Tally, of_interval, of_minutes


@pytest.mark.parametrize(
    ("arrived", "doubled", "missed"),
    [
        ([], 0, 0),
        ([0.0], 0, 0),
        ([0.0, 1.0, 2.1, 3.0], 0, 0),
        ([0.0, 1.0, 1.4, 2.4], 1, 0),
        ([0.0, 1.0, 1.0, 1.0], 2, 0),
        ([0.0, 16.0, 17.0], 0, 0),
        ([0.0, 16.1, 17.0, 40.0], 0, 2),
    ],
)
def test_an_interval(arrived: list[float], doubled: int, missed: int) -> None:
    found = of_interval(arrived, 1.0)
    assert (found.ticks, found.doubled, found.missed) == (len(arrived), doubled, missed)


@pytest.mark.parametrize(
    ("arrived", "doubled", "missed"),
    [
        ([], 0, 0),
        ([60.1, 120.2, 194.9], 0, 0),
        ([60.1, 60.3, 120.2], 1, 0),
        ([60.1, 240.1], 0, 2),
        ([60.1, 136.0], 0, 1),
    ],
)
def test_minutes(arrived: list[float], doubled: int, missed: int) -> None:
    found = of_minutes(arrived)
    assert (found.ticks, found.doubled, found.missed) == (len(arrived), doubled, missed)


def test_the_worst_of_several_is_told() -> None:
    total = of_interval([0.0, 3.0], 1.0) + of_interval([0.0, 0.25, 9.0], 1.0)
    assert total == Tally(ticks=5, doubled=1, missed=0, latest_s=7.75, closest_s=0.25)
