"""When an instance takes no work for a while, and when its failures are no fault of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from nxs_tasks.model.decision import Eject, Nothing
from nxs_tasks.model.runs import Runs
from nxs_tasks.policy.fleet.ejection import Failing, judge
from tests.unit.builders import NOW, an_instance, case, knobs

SPEC = knobs()
WELL, BADLY, RARE, SOMETIMES = Runs(50, 1), Runs(1, 50), Runs(4, 0), Runs(65, 35)
PAY, MAIL, FAX = "shop.pay", "shop.mail", "shop.fax"


def judged(
    tail: list[str],
    elsewhere: dict[str, Runs],
    here: dict[str, Runs] | None = None,
    rows: dict[str, int] | None = None,
    **record: Any,
) -> Eject | Nothing:
    """`tail` failed one after the other; `rows` if there were successes of other names between."""
    failing = Failing(Counter(tail) if rows is None else rows, tail, elsewhere)
    return judge(an_instance("w1", **record), failing, here or {}, elsewhere, SPEC, NOW)


@pytest.mark.parametrize(
    ("tail", "elsewhere", "ejected"),
    [
        case("five in a row that go well elsewhere", [PAY] * 5, {PAY: WELL}, True),
        case("four", [PAY] * 4, {PAY: WELL}, False),
        case("of several names", [PAY, MAIL, FAX] * 2, {PAY: WELL, MAIL: WELL, FAX: WELL}, True),
        case("that fail everywhere", [PAY] * 99, {PAY: BADLY}, False),
        case("that nobody else has run", [PAY] * 99, {}, False),
        case("that hardly anybody has run", [PAY] * 99, {PAY: RARE}, False),
        case("five by chance", [PAY] * 5, {PAY: SOMETIMES}, False),
        case("so many that it is no chance", [PAY] * 12, {PAY: SOMETIMES}, True),
        case("of which four fail only here", [PAY, MAIL] * 4, {PAY: WELL, MAIL: BADLY}, False),
        case("of which five fail only here", [PAY, MAIL] * 5, {PAY: WELL, MAIL: BADLY}, True),
    ],
)
def test_a_black_hole_is_by_its_row(
    tail: list[str], elsewhere: dict[str, Runs], ejected: bool
) -> None:
    decision = judged(tail, elsewhere)
    assert isinstance(decision, Eject) is ejected
    assert decision.reason


def test_one_that_fails_a_single_name_and_does_all_others() -> None:
    assert isinstance(judged([], {PAY: WELL, MAIL: WELL}, rows={PAY: 5}), Eject)
    assert isinstance(judged([], {PAY: WELL, MAIL: WELL}, rows={PAY: 4, MAIL: 4}), Nothing)


@pytest.mark.parametrize(
    ("here", "elsewhere", "ejected"),
    [
        case("every second one of twenty", {PAY: Runs(10, 10)}, {PAY: WELL}, False),
        case("most of twenty", {PAY: Runs(9, 11)}, {PAY: WELL}, True),
        case("all of nineteen", {PAY: Runs(0, 19)}, {PAY: WELL}, False),
        case("most, as elsewhere", {PAY: Runs(5, 45)}, {PAY: BADLY}, False),
        case("most, of a name that nobody else runs", {PAY: Runs(0, 50)}, {MAIL: WELL}, False),
        case("nothing ran", {}, {}, False),
    ],
)
def test_a_black_hole_is_by_its_share(
    here: dict[str, Runs], elsewhere: dict[str, Runs], ejected: bool
) -> None:
    assert isinstance(judged([], elsewhere, here), Eject) is ejected


@pytest.mark.parametrize(
    ("before", "healthy_s", "times"),
    [
        case("never before", 0, 0.0, 1),
        case("just back from the first", 1, 0.0, 2),
        case("back for a while", 1, 30.0, 1),
        case("back from the third for a while", 3, 30.0, 3),
        case("back from the third for long", 3, 3600.0, 1),
        case("as often as counts", 10, 1.0, 10),
    ],
)
def test_each_further_time_is_longer(before: int, healthy_s: float, times: int) -> None:
    record: dict[str, Any] = {
        "ejections": before,
        "ejected_until": NOW - healthy_s if before else 0.0,
    }
    decision = judged([PAY] * 5, {PAY: WELL}, **record)
    assert isinstance(decision, Eject)
    assert (decision.times, decision.seconds) == (times, times * 30.0)


def test_a_reason_says_what_failed_and_whose_fault_it_is() -> None:
    assert judged([PAY] * 5, {PAY: WELL}).reason == (
        "5 tasks in a row failed here that go well elsewhere: shop.pay"
    )
    assert judged([PAY] * 5, {PAY: BADLY}).reason == "shop.pay fails elsewhere too: 50 of 51"
    assert judged([PAY] * 5, {}).reason == (
        "hardly anybody else has run shop.pay meanwhile: no fault of this instance"
    )
    assert judged([], {PAY: WELL}, {PAY: Runs(0, 20)}).reason == (
        "20 of 20 tasks failed here, 0 would have elsewhere"
    )


@pytest.mark.parametrize(("back_for_s", "ejected"), [(0.0, False), (119.0, False), (120.0, True)])
def test_what_failed_before_an_ejection_counts_no_more(back_for_s: float, ejected: bool) -> None:
    here = {PAY: Runs(11, 31)}
    decision = judged([PAY], {PAY: WELL}, here, ejections=1, ejected_until=NOW - back_for_s)
    assert isinstance(decision, Eject) is ejected
