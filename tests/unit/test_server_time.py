"""The server's time between two answers of it."""

from __future__ import annotations

import pytest

from nxs_tasks.clock import FakeClock
from nxs_tasks.control.server_time import ServerTime


def test_it_is_unknown_before_the_first_answer() -> None:
    assert ServerTime(FakeClock()).now() is None


def test_it_goes_on_by_the_steady_clock() -> None:
    clock = FakeClock(7.0)
    time = ServerTime(clock)
    assert time.set(1000.0, asked_at=7.0) == 0.0
    clock.advance(2.5)
    assert time.now() == 1002.5


def test_an_answer_that_took_long_is_half_as_old() -> None:
    clock = FakeClock(7.0)
    time = ServerTime(clock)
    clock.advance(4.0)
    time.set(1000.0, asked_at=7.0)
    assert time.now() == 1002.0


@pytest.mark.parametrize("step", [600.0, -600.0, 0.0])
def test_it_is_told_when_the_servers_clock_was_set(step: float) -> None:
    clock = FakeClock(7.0)
    time = ServerTime(clock)
    time.set(1000.0, asked_at=7.0)
    clock.advance(3.0)
    assert time.set(1003.0 + step, asked_at=10.0) == step
    assert time.now() == 1003.0 + step
