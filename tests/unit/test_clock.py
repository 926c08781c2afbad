"""The clock: which of its hands stands still when."""

from __future__ import annotations

import time

import pytest

from nxs_tasks.clock import SYSTEM, FakeClock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has that clock")
def test_what_passes_while_the_machine_is_suspended_counts_as_elapsed() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= SYSTEM.elapsed() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_all_hands_of_a_fake_clock_move_together() -> None:
    clock = FakeClock(5.0)
    clock.advance(2.0)
    assert clock.now() == clock.monotonic() == clock.elapsed() == 7.0
