"""What is judged, what is learnt and what is not, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from nxs_tasks.model.runs import Runs
from nxs_tasks.model.state import State
from nxs_tasks.worker.health import Health
from nxs_tasks.worker.tally import Ran, Tally
from nxs_tasks.worker.vitals import WARM_UP, VitalSigns
from tests.unit.builders import case, knobs

PAY = "shop.pay"
SPEC = knobs()
BEAT = SPEC.heartbeat_period
MINUTE = 60.0


def some(count: int, seconds: float = 0.1, failed: int = 0) -> dict[str, Ran]:
    tally = Tally()
    for _ in range(count):
        tally.success(PAY, seconds)
    for _ in range(failed):
        tally.failure(PAY)
    return tally.take()


class Signs:
    """Looks every 5 s at so many runs."""

    def __init__(self, start_s: float = 0.0) -> None:
        self.now = 0.0
        self.signs = VitalSigns(60.0, 20, 0.0)

    def go(self, seconds: float, each: int = 10, took: float = 0.1, spoil: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT
            self.signs.add(some(each, took), self.now)
            if spoil:
                self.signs.spoil()
            self.signs.learn(self.now)

    @property
    def usual(self) -> float | None:
        past = self.signs.view(self.now)[0][PAY].past
        return None if past is None else past.took.quantile(0.95)


def test_slow_first_runs_are_neither_learnt_nor_judged() -> None:
    signs = Signs()
    signs.go(MINUTE, took=9.0)
    assert PAY not in signs.signs.view(signs.now)[0]
    signs.go(10 * MINUTE)
    assert signs.usual == pytest.approx(0.1, rel=0.05)


def test_so_are_the_first_ones_of_a_rare_name() -> None:
    signs = Signs()
    for _ in range(WARM_UP):
        signs.go(MINUTE / 2, each=0)
        signs.go(BEAT, each=1, took=9.0)
    signs.go(30 * MINUTE, each=1)
    assert signs.usual == pytest.approx(0.1, rel=0.05)


def test_what_is_learnt_is_what_has_left_every_window() -> None:
    signs = Signs()
    signs.go(10 * MINUTE)
    signs.go(5 * MINUTE, took=5.0)
    assert signs.usual == pytest.approx(0.1, rel=0.05)
    signs.go(5 * MINUTE, took=5.0)
    assert signs.usual == pytest.approx(5.0, rel=0.05)


def test_nothing_is_learnt_from_what_is_spoilt_also_when_it_is_over() -> None:
    signs = Signs()
    signs.go(10 * MINUTE)
    signs.go(5 * MINUTE, took=5.0, spoil=True)
    signs.go(10 * MINUTE)
    vital = signs.signs.view(signs.now)[0][PAY]
    assert vital.past is not None
    assert vital.past.took.above(1.0) == 0


def test_what_was_learnt_counts_half_after_an_hour() -> None:
    signs = Signs()
    signs.go(130 * MINUTE, took=1.0)
    signs.go(65 * MINUTE)
    vital = signs.signs.view(signs.now)[0][PAY]
    assert vital.past is not None
    assert vital.past.took.above(0.5) / vital.past.took.count == pytest.approx(0.4, abs=0.05)


def test_the_window_is_a_minute_or_as_long_as_it_takes_to_hold_enough() -> None:
    signs = Signs()
    signs.go(10 * MINUTE)
    vitals, span_s = signs.signs.view(signs.now)
    assert (vitals[PAY].took.count, span_s) == (120, MINUTE)
    signs.go(MINUTE, each=1)
    vitals, span_s = signs.signs.view(signs.now)
    assert (vitals[PAY].took.count, span_s) == (22, MINUTE + BEAT)
    signs.go(10 * MINUTE, each=0)
    assert signs.signs.view(signs.now)[0] == {}


def test_ranks_are_told_when_there_is_a_past() -> None:
    signs = Signs()
    assert signs.signs.ranked(PAY, some(4)[PAY].took) == Runs()
    signs.go(10 * MINUTE)
    assert signs.signs.ranked(PAY, some(4)[PAY].took) == Runs(ranked=4, ranks=2.0)
    assert signs.signs.ranked(PAY, some(4, 9.0)[PAY].took) == Runs(ranked=4, ranks=4.0)
    signs.signs.relearn([PAY])
    assert signs.usual is None


# the look of one process


class Looking:
    """One that looks at every heartbeat, and others that have told `elsewhere`."""

    def __init__(self, elsewhere: Runs | None = None) -> None:
        self.now, self.state = 0.0, State.ACTIVE
        self.health = Health(SPEC, 0.0)
        self.elsewhere = elsewhere or Runs()
        self.asked = 0
        self.unhealthy = ""

    def ask(self, names: Sequence[str], back_s: float) -> Mapping[str, Runs]:
        self.asked += 1
        return {PAY: self.elsewhere}

    def go(self, seconds: float, each: int = 10, took: float = 0.1, failed: int = 0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT
            self.health.add(some(each, took, failed), self.now)
            self.unhealthy = self.health.look(self.state, self.ask, self.now)


@pytest.mark.parametrize(
    ("took", "failed", "said"),
    [
        case("slow", 5.0, 0, "takes 5.1 s (p95 of"),
        case("fails", 0.1, 5, "fails"),
    ],
)
def test_it_is_found_within_a_minute_and_is_over_within_one(
    took: float, failed: int, said: str
) -> None:
    looking = Looking(Runs(500, 0, 500, 250.0))
    looking.go(10 * MINUTE)
    assert (looking.unhealthy, looking.asked) == ("", 0)
    looking.go(MINUTE, took=took, failed=failed)
    assert said in looking.unhealthy
    looking.go(30 * MINUTE, took=took, failed=failed)
    assert said in looking.unhealthy, "what is wrong is not learnt"
    looking.go(MINUTE)
    assert looking.unhealthy == ""


def test_who_is_degraded_learns_nothing() -> None:
    looking = Looking()
    looking.state = State.DEGRADED
    looking.go(30 * MINUTE)
    assert looking.health.told(some(4))[PAY].ranked == 0
    looking.state = State.ACTIVE
    looking.go(10 * MINUTE)
    assert looking.health.told(some(4))[PAY].ranked == 4


def test_what_ran_while_the_broker_was_away_is_told_and_not_judged() -> None:
    looking = Looking()
    looking.go(10 * MINUTE)
    looking.health.interrupt()
    assert looking.health.told(some(40, 9.0))[PAY] == Runs(40)
    looking.go(BEAT, each=500, took=9.0)
    looking.go(MINUTE)
    assert (looking.unhealthy, looking.asked) == ("", 0)


def test_alone_it_is_usual_after_an_hour() -> None:
    looking = Looking()
    looking.go(10 * MINUTE)
    looking.go(10 * MINUTE, took=5.0)
    assert "nobody else runs it" in looking.unhealthy
    looking.go(55 * MINUTE, took=5.0)
    assert looking.unhealthy == ""
    looking.go(20 * MINUTE, took=5.0)
    assert (looking.unhealthy, looking.health.told(some(1, 5.0))[PAY]) == ("", Runs(1, 0, 1, 0.5))
