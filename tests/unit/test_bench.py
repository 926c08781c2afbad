"""The benches' own machinery: figures, the command line, and turns. No bench runs here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from bench import peers
from bench.catalog import BENCHES, Bench, BenchError, Say
from bench.command import main
from bench.figure import Figure, Goal
from bench.rounds import Result, Round, percentile, take_turns
from bench.stopwatch import Stopwatch
from nxs_tasks.clock import FakeClock

RATIO = Goal("ratio", "<=", 1.10)


def a_figure(**changes: Any) -> Figure:
    known: dict[str, Any] = {
        "bench": "fake",
        "metric": "delay() at 3",
        "value": 330.123456789,
        "unit": "µs",
        "peer": "plain",
        "peer_value": 300.0,
        "ratio": 1.08,
        "goal": RATIO,
    }
    return Figure(**{**known, **changes})


def a_bench(*figures: Figure) -> Bench:
    def run(say: Say) -> Iterator[Figure]:
        say("measuring")
        yield from figures

    return Bench("what a fake costs", run)


def broken() -> Bench:
    def run(say: Say) -> Iterator[Figure]:
        yield a_figure()
        raise BenchError("nothing was placed")

    return Bench("never done", run)


TABLE = {
    "seeded": a_bench(a_figure(least=0.98765, most=1234.5), a_figure()),
    "met": a_bench(a_figure(), a_figure(goal=None, ratio=9.0)),
    "missed": a_bench(a_figure(), a_figure(ratio=1.2)),
    "without": a_bench(a_figure(goal=None)),
    "broken": broken(),
}


# figures


def test_a_figure_is_one_line_of_json() -> None:
    line = a_figure().as_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "bench": "fake",
        "metric": "delay() at 3",
        "value": 330.123,
        "unit": "µs",
        "peer": "plain",
        "peer_value": 300.0,
        "ratio": 1.08,
        "least": None,
        "most": None,
        "goal": "ratio <= 1.10",
        "pass": True,
    }


def test_what_a_figure_has_not_is_null() -> None:
    known = json.loads(Figure(bench="fake", metric="look", value=2, unit="ms").as_json())
    assert known.pop("value") == 2
    assert {name for name, value in known.items() if value is None} == {
        "peer",
        "peer_value",
        "ratio",
        "least",
        "most",
        "goal",
        "pass",
    }


@pytest.mark.parametrize(
    ("goal", "value", "ratio", "passed"),
    [
        (None, 1.0, 9.9, None),
        (RATIO, 999.0, 1.10, True),
        (RATIO, 0.1, 1.1001, False),
        (RATIO, 0.1, None, False),
        (Goal("value", "<=", 20.0), 20.0, 9.9, True),
        (Goal("value", "<=", 20.0), 20.1, 0.1, False),
        (Goal("value", ">=", 1000.0), 1000.0, None, True),
        (Goal("value", ">=", 1000.0), 999.0, None, False),
    ],
)
def test_a_goal(goal: Goal | None, value: float, ratio: float | None, passed: bool | None) -> None:
    assert a_figure(goal=goal, value=value, ratio=ratio).passed is passed


# command line


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["met"], 0),
        (["met", "--strict"], 0),
        (["missed"], 0),
        (["missed", "--strict"], 1),
        (["missed", "--strict", "--json"], 1),
        (["without", "--strict"], 0),
        (["broken"], 1),
        (["broken", "--json"], 1),
    ],
)
def test_the_exit_code(argv: list[str], code: int) -> None:
    assert main(argv, TABLE) == code


def test_json_is_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    main(["missed", "--json"], TABLE)
    out, err = capsys.readouterr()
    assert [json.loads(line)["pass"] for line in out.splitlines()] == [True, False]
    assert err == ""


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    main(["missed"], TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["metric", "value", "peer", "ratio", "goal", "met"]
    assert [line.split()[-1] for line in lines[1:]] == ["yes", "NO"]
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)


def test_what_the_seeds_say_is_shown_where_there_are_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["seeded"], TABLE)
    header, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["metric", "value", "peer", "ratio", "seeds", "goal", "met"]
    assert "0.988–1,234" in first
    assert len(second) == len(first) - 1


def test_a_bench_that_cannot_measure_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    main(["broken", "--json"], TABLE)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1, "what was measured before is kept"
    assert err == "bench broken: nothing was placed\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "Say which bench"),
        (["mised"], "unknown bench 'mised', did you mean 'missed'?"),
        (["zzz"], "unknown bench 'zzz'; there are:"),
    ],
)
def test_without_a_known_name_there_is_a_list(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv, TABLE) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert all(name in err and bench.about in err for name, bench in TABLE.items())


def test_every_bench_of_the_catalog_says_what_it_asks() -> None:
    assert "submit" in BENCHES
    assert all(bench.about for bench in BENCHES.values())


def test_variables_of_the_shell_do_not_reach_a_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXS_PLACEMENT_SAMPLE", "1")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere:6379/0")
    seen: list[str] = []

    def run(say: Say) -> Iterator[Figure]:
        seen.extend(name for name in os.environ if name.startswith(("NXS_", "CELERY_")))
        yield a_figure()

    assert main(["looks"], {"looks": Bench("looks around", run)}) == 0
    assert seen == []
    assert os.environ["CELERY_BROKER_URL"] == "redis://elsewhere:6379/0"


# turns


class Counted:
    """A side that writes down what it is asked to do."""

    def __init__(self, name: str, log: list[str], *, fails: bool = False) -> None:
        self._name = name
        self._log = log
        self._fails = fails

    def enter(self) -> None:
        self._log.append(f"{self._name} enters")

    def turn(self) -> None:
        self._log.append(self._name)
        if self._fails:
            raise BenchError("no")

    def leave(self) -> None:
        self._log.append(f"{self._name} leaves")


@pytest.mark.parametrize(("first", "order"), [(0, ["ours", "peer"]), (1, ["peer", "ours"])])
def test_who_is_first_in_a_pair(first: int, order: list[str]) -> None:
    log: list[str] = []
    done = take_turns(Counted("ours", log), Counted("peer", log), at_least_s=0.0, first=first)
    assert done.turns == 1
    assert log == [text for name in order for text in (f"{name} enters", name, f"{name} leaves")]


def test_who_is_first_changes_with_each_pair() -> None:
    log: list[str] = []
    done = take_turns(Counted("ours", log), Counted("peer", log), at_least_s=1e-5)
    turns = [name for name in log if name in ("ours", "peer")]
    assert turns == (["ours", "peer", "peer", "ours"] * done.turns)[: 2 * done.turns]
    assert done.ours_s >= 1e-5


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    rounds = tuple(Round(ours_s=r, peer_s=1.0, turns=10) for r in (1.0, 1.1, 1.2, 1.3, 9.0))
    result = Result(rounds)
    assert result.ratio == 1.2
    assert result.ratio_quartiles == (1.1, 1.3)
    assert result.per_turn(lambda r: r.ours_s) == 0.12


def test_a_percentile() -> None:
    assert percentile(range(101), 99) == 99


def test_a_stopwatch_runs_between_start_and_stop_only() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock)
    for running, expected in ((True, 2.0), (False, 2.0), (True, 4.0)):
        if running:
            watch.start()
        clock.advance(2.0)
        assert watch.monotonic() == expected
        if running:
            watch.stop()
    assert watch.now() == clock.now()
    watch.advance(3.0)
    assert watch.monotonic() == 7.0


def test_a_bench_says_which_peers_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MODULES", {"json": "json", "no_such_queue": "no-such[redis]"})
    with pytest.raises(BenchError, match=r"not installed: no-such\[redis\]. `make bench"):
        peers.require_all()


def test_a_turn_that_fails_is_cleared_up() -> None:
    log: list[str] = []
    failing = Counted("ours", log, fails=True)
    with pytest.raises(BenchError):
        take_turns(failing, Counted("peer", log), at_least_s=0.0)
    assert log == ["ours enters", "ours", "ours leaves"]
