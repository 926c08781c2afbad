"""The health of simulated instances, judged by the real code: shorter than the bench."""

from __future__ import annotations

import pytest

from bench.lifecycle.health import (
    ALL_SLOW,
    BROWN,
    FROM_S,
    SHAPES,
    SOON,
    SPARSE_S,
    UNTIL_S,
    WELL,
    Trial,
    measure,
)
from nxs_tasks.model.state import State


@pytest.mark.parametrize("shape", SHAPES)
def test_who_is_well_is_never_degraded(shape: str) -> None:
    trial = Trial(what=WELL, shape=shape, mean_s=SPARSE_S, instances=1, seconds=4 * 3600.0)
    assert measure(trial) == []


def test_who_is_slow_is_found_once_and_is_back_once() -> None:
    found = measure(Trial(what=BROWN, shape=SHAPES[1], instances=2))
    assert [(c.instance, c.state) for c in found] == [(0, State.DEGRADED), (0, State.ACTIVE)]
    assert FROM_S < found[0].at <= FROM_S + SOON.limit
    assert UNTIL_S < found[1].at <= UNTIL_S + 2 * SOON.limit


def test_what_is_slow_for_all_is_nobodys_fault() -> None:
    assert measure(Trial(what=ALL_SLOW, shape=SHAPES[0], instances=2)) == []
