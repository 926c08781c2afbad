"""What is unusual in how tasks go, whose fault it is, and how long a verdict lasts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nxs_tasks.model.durations import durations
from nxs_tasks.model.runs import Runs
from nxs_tasks.policy.fleet.health import BELIEVED, FADES, REACH, WELL, Verdict, asked, judge
from nxs_tasks.policy.fleet.unusual import Past, Vital, by_chance, seconds
from tests.unit.builders import case, knobs

SPEC = knobs()
PAY, MAIL, FAX = "shop.pay", "shop.mail", "shop.fax"
NOW = 10_000.0
#: 0.5 to 1.4 s, each as often.
USUAL = Past(durations({0.5 + n / 10: 100.0 for n in range(10)}), ran=1000.0, failed=10.0)
WELL_ELSEWHERE = Runs(500, 0, ranked=500, ranks=250.0)
SLOW_ELSEWHERE = Runs(500, 0, ranked=500, ranks=490.0)
NOBODY = Runs()


def a_name(
    times: float = 1.0,
    runs: int = 40,
    failed: int = 0,
    past: Past | None = USUAL,
    elsewhere: Runs | None = WELL_ELSEWHERE,
) -> Vital:
    """So many runs that took so many times longer than usual, and so many that failed."""
    took = durations({times * (0.5 + n / 10): runs / 10 for n in range(10)} if runs else {})
    return Vital(Runs(runs, failed), took, past, elsewhere)


def judged(
    before: Verdict = WELL,
    now: float = NOW,
    *,
    pay: Vital | None = None,
    mail: Vital | None = None,
) -> Verdict:
    both = {PAY: pay, MAIL: mail}
    return judge({n: v for n, v in both.items() if v is not None}, before, SPEC, now)


@pytest.mark.parametrize(
    ("pay", "said"),
    [
        case("as before", a_name(), ""),
        case("ten times slower here", a_name(10), "shop.pay takes 14 s (p95 of 40), 1.5 s before"),
        case("twice as slow is allowed", a_name(1.9), ""),
        case("slower everywhere", a_name(10, elsewhere=SLOW_ELSEWHERE), ""),
        case("too few say nothing", a_name(10, runs=19), ""),
        case("twenty are enough", a_name(10, runs=20), "elsewhere as before"),
        case("no past", a_name(10, past=None), ""),
        case("others have no past yet", a_name(10, elsewhere=Runs(500)), ""),
        case("hardly anybody else", a_name(10, elsewhere=Runs(9, 0, 9, 4.5)), ""),
        case("nobody else", a_name(10, elsewhere=NOBODY), "nobody else runs it"),
        case("a quarter fails", a_name(runs=75, failed=25), "25 times of 100 here, 0 of 500"),
        case("a quarter by chance", a_name(runs=15, failed=5, elsewhere=Runs(48, 2)), ""),
        case("less than a tenth more", a_name(runs=1850, failed=150), ""),
        case("fails elsewhere too", a_name(runs=75, failed=25, elsewhere=Runs(400, 100)), ""),
        case("fails, nobody else", a_name(runs=75, failed=25, elsewhere=NOBODY), "1 % before"),
        case("unknown", a_name(runs=75, failed=25, past=None, elsewhere=NOBODY), ""),
    ],
)
def test_whose_fault_it_is(pay: Vital, said: str) -> None:
    verdict = judged(pay=pay)
    assert said in verdict.unhealthy
    assert bool(said) is bool(verdict.faults)


def test_less_than_the_least_is_noise() -> None:
    quick = Past(durations({0.001: 1000}), 1000)
    for took, unhealthy in ((0.04, False), (0.06, True)):
        pay = Vital(Runs(40), durations({took: 40}), quick, WELL_ELSEWHERE)
        assert bool(judged(pay=pay).unhealthy) is unhealthy


def test_where_few_are_long_the_median_counts() -> None:
    """One in twenty takes 10 s: nothing can be said of a percentile that falls between the two."""
    past = Past(durations({0.5: 940.0, 10.0: 60.0}), 1000)
    slow = Vital(Runs(40), durations({5.0: 40}), past, WELL_ELSEWHERE)
    assert "5.1 s (median of 40), 0.5 s before" in judged(pay=slow).unhealthy


def test_rare_names_are_taken_together() -> None:
    rare = a_name(10, 10)
    assert "20 tasks of 2 names take longer" in judged(pay=rare, mail=rare).unhealthy
    assert not judged(pay=rare, mail=a_name(1, 10)).unhealthy


@pytest.mark.parametrize(
    ("mail", "unhealthy"),
    [
        case("goes as before, here and elsewhere", a_name(), False),
        case("is slow here too", a_name(10), True),
        case("is slow everywhere", a_name(10, elsewhere=SLOW_ELSEWHERE), False),
        case("nobody else runs it either", a_name(elsewhere=NOBODY), True),
        case("is too rare to say", a_name(runs=5), True),
    ],
)
def test_a_name_that_nobody_else_runs(mail: Vital, unhealthy: bool) -> None:
    verdict = judged(pay=a_name(10, elsewhere=NOBODY), mail=mail)
    assert bool(verdict.unhealthy) is unhealthy


# how long it lasts


SICK = judged(pay=a_name(10))


def test_it_lasts_until_it_is_half_way_back() -> None:
    assert judged(SICK, pay=a_name(1.7)).unhealthy, "would not begin"
    assert not judged(SICK, pay=a_name(1.3)).unhealthy
    failing = judged(pay=a_name(runs=75, failed=25))
    assert judged(failing, pay=a_name(runs=93, failed=7)).unhealthy
    assert not judged(failing, pay=a_name(runs=96, failed=4)).unhealthy


def test_without_evidence_it_stays_and_fades() -> None:
    fades = FADES * SPEC.health_window
    for pay, mail in ((None, None), (a_name(1, 5), None), (None, a_name())):
        assert judged(SICK, NOW + fades, pay=pay, mail=mail).unhealthy
        assert not judged(SICK, NOW + fades + 1, pay=pay, mail=mail).unhealthy


def test_what_is_so_elsewhere_now_is_no_fault_any_more() -> None:
    verdict = judged(SICK, pay=a_name(10, elsewhere=SLOW_ELSEWHERE))
    assert not verdict.unhealthy
    assert verdict.odd == {PAY}, "and nothing is learnt from it"


def test_what_is_over_elsewhere_is_a_fault_when_nothing_of_it_is_looked_at() -> None:
    everywhere = judged(pay=a_name(10, elsewhere=SLOW_ELSEWHERE))
    until = NOW + REACH * SPEC.health_window
    assert not judged(everywhere, until, pay=a_name(10)).unhealthy
    assert judged(everywhere, until + 1, pay=a_name(10)).unhealthy


@pytest.mark.parametrize(
    ("elsewhere", "relearnt"),
    [
        case("as before: it stays", WELL_ELSEWHERE, set()),
        case("slow too", SLOW_ELSEWHERE, {PAY}),
        case("nobody", NOBODY, {PAY}),
    ],
)
def test_what_cannot_be_compared_is_usual_in_the_end(elsewhere: Runs, relearnt: set[str]) -> None:
    pay = a_name(10, elsewhere=elsewhere)
    later = NOW + BELIEVED * SPEC.health_window
    before = judged(pay=pay)
    assert not judged(before, later - 1, pay=pay).relearn
    verdict = judged(before, later, pay=pay)
    assert verdict.relearn == relearnt
    assert bool(verdict.unhealthy) is not bool(relearnt)


def test_several_faults_are_told_by_the_first() -> None:
    both = judged(SICK, NOW + 5, pay=a_name(10), mail=a_name(10))
    assert both.unhealthy.startswith(PAY)
    assert both.unhealthy.endswith("(and 1 more)")


# who is asked


def test_nobody_is_asked_while_all_is_usual() -> None:
    usual = {PAY: a_name(elsewhere=None), MAIL: a_name(failed=1, elsewhere=None)}
    assert asked(usual, WELL, SPEC) == ()
    assert asked(usual, SICK, SPEC) == (PAY, MAIL), "while a verdict lasts"


@pytest.mark.parametrize("pay", [a_name(10), a_name(runs=30, failed=10)])
def test_others_are_asked_of_what_is_unusual_and_of_what_runs_beside_it(pay: Vital) -> None:
    many = {f"shop.{n:02}": a_name(runs=100 + n, elsewhere=None) for n in range(30)}
    names = asked({**many, PAY: replace(pay, elsewhere=None)}, WELL, SPEC)
    assert names[0] == PAY
    assert names[1:] == tuple(f"shop.{n:02}" for n in range(29, 17, -1)), "the busiest"


def test_chance() -> None:
    assert by_chance(0, 20, 0, 20) == 1.0
    assert by_chance(20, 20, 0, 20) == pytest.approx(2.0**-40)
    # Fisher's exact test says 1e-5.
    assert by_chance(6, 20, 0, 100) == pytest.approx(9e-6, rel=0.1)


def test_seconds_in_words() -> None:
    assert [seconds(s) for s in (0.0014, 0.024, 2.43, 140.0, None)] == [
        "1.4 ms", "24 ms", "2.4 s", "140 s", "an unknown time",
    ]  # fmt: skip
