"""When an instance takes no work for a while, and when its failures are no fault of its own."""

from __future__ import annotations

import pytest

from nxs_tasks.model.decision import Eject, Nothing
from nxs_tasks.policy.fleet.ejection import Runs, judge
from tests.unit.builders import NOW, an_instance, case, knobs

SPEC = knobs()
WELL, BADLY, RARE = Runs(50, 1), Runs(1, 50), Runs(2, 0)
PAY, MAIL = "shop.pay", "shop.mail"


def judged(
    failing: list[str], here: dict[str, Runs], elsewhere: dict[str, Runs], **record: object
) -> Eject | Nothing:
    return judge(an_instance("w1", **record), failing, here, elsewhere, SPEC, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failing", "here", "elsewhere", "ejected"),
    [
        case("five in a row that go well elsewhere", [PAY] * 5, {}, {PAY: WELL}, True),
        case("four", [PAY] * 4, {}, {PAY: WELL}, False),
        case("of several names", [PAY, MAIL] * 3, {}, {PAY: WELL, MAIL: WELL}, True),
        case("that fail everywhere", [PAY] * 99, {}, {PAY: BADLY}, False),
        case("that nobody else has run", [PAY] * 99, {}, {}, False),
        case("that hardly anybody has run", [PAY] * 99, {}, {PAY: RARE}, False),
        case("of which four fail only here", [PAY, MAIL] * 4, {}, {PAY: WELL, MAIL: BADLY}, False),
        case("of which five fail only here", [PAY, MAIL] * 5, {}, {PAY: WELL, MAIL: BADLY}, True),
        case("every second one of twenty", [], {PAY: Runs(10, 10)}, {PAY: WELL}, False),
        case("most of twenty", [], {PAY: Runs(9, 11)}, {PAY: WELL}, True),
        case("all of nineteen", [], {PAY: Runs(0, 19)}, {PAY: WELL}, False),
        case("most, as elsewhere", [], {PAY: Runs(5, 45)}, {PAY: BADLY}, False),
        case(
            "most, of a name that nobody else runs",
            [],
            {PAY: Runs(0, 50), MAIL: Runs(40, 0)},
            {MAIL: WELL},
            False,
        ),
        case("nothing ran", [], {}, {}, False),
    ],
)
def test_a_black_hole_is(
    failing: list[str], here: dict[str, Runs], elsewhere: dict[str, Runs], ejected: bool
) -> None:
    decision = judged(failing, here, elsewhere)
    assert isinstance(decision, Eject) is ejected
    assert decision.reason


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
    record = {"ejections": before, "ejected_until": NOW - healthy_s if before else 0.0}
    decision = judged([PAY] * 5, {}, {PAY: WELL}, **record)
    assert isinstance(decision, Eject)
    assert (decision.times, decision.seconds) == (times, times * 30.0)


def test_a_reason_says_what_failed_and_whose_fault_it_is() -> None:
    assert judged([PAY] * 5, {}, {PAY: WELL}).reason == (
        "5 tasks in a row failed here that go well elsewhere: shop.pay"
    )
    assert judged([PAY] * 5, {}, {PAY: BADLY}).reason == "shop.pay fails elsewhere too: 50 of 51"
    assert judged([PAY] * 5, {}, {}).reason == (
        "nobody else has run shop.pay lately: no fault of this instance"
    )
    assert judged([], {PAY: Runs(0, 20)}, {PAY: WELL}).reason == (
        "20 of 20 tasks failed here, 0 would have elsewhere"
    )
