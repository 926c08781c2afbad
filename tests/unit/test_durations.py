"""Histograms of durations: what is read is what was put in, within a bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.durations import GROWTH, Durations, durations
from tests.unit.builders import examples

SECONDS = st.floats(1e-3, 1e5)


def of(*seconds: float) -> Durations:
    made = Durations()
    for one in seconds:
        made.add(one)
    return made


@examples(100)
@given(st.lists(SECONDS, min_size=1), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_a_quantile_is_within_half_a_bucket(seconds: list[float], share: float) -> None:
    rank = max(1, -(-int(share * 100) * len(seconds) // 100))
    found = of(*seconds).quantile(share)
    assert found == pytest.approx(sorted(seconds)[rank - 1], rel=GROWTH**0.5 - 1 + 1e-9)


@examples(100)
@given(st.lists(SECONDS, min_size=1), st.lists(SECONDS, min_size=1))
def test_ranks_of_two_sides_add_up(a: list[float], b: list[float]) -> None:
    mine, theirs = of(*a), of(*b)
    share = mine.ranks_of(theirs) / len(b)
    assert 0.0 <= share <= 1.0
    assert share + theirs.ranks_of(mine) / len(a) == pytest.approx(1.0)


def test_ranks_say_where_others_lie() -> None:
    usual = of(1, 2, 3, 4)
    assert usual.ranks_of(of(10, 10)) == 2.0
    assert usual.ranks_of(of(0.1)) == 0.0
    assert usual.ranks_of(of(3)) == pytest.approx(0.625), "above two, half of its own like"
    assert Durations().ranks_of(of(1)) == 0.0


def test_of_nothing_no_quantile_is_known() -> None:
    assert Durations().quantile(0.5) is None
    assert of(1, 5).above(2) == 1
    assert durations({1.0: 3, 5.0: 1}).count == 4


def test_what_fades_is_gone_in_the_end() -> None:
    some = of(1, 1, 2)
    some.fade(0.5)
    assert some.count == pytest.approx(1.5)
    some.fade(1e-4)
    assert not some.counts


def test_what_is_added_later_is_not_in_a_copy() -> None:
    some = of(1)
    copied = some.copy()
    some.add(1)
    assert (copied.count, some.count) == (1, 2)


def test_nothing_is_too_short_or_too_long() -> None:
    assert of(0.0, -1.0, float("inf")).count == 3
