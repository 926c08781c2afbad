"""The parts of the bench `placement`: fair runs, spreads over seeds. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from bench.catalog import BenchError, Say
from bench.figure import Goal
from bench.placement import backlog, caches, herd, holes, speeds, workers
from bench.placement.herd import AGES, INSTANCES
from bench.placement.spread import Spread, alone
from bench.placement.trial import CENTRAL, NXS, SIDES, UNCHECKED, Seen, Trial, measure, measure_all

TRIAL = Trial(side=NXS, seed=1, speeds=(2.0, 1.0), slots=2, jobs=500, rho=0.8, scv=10.0)


def silent(text: str) -> None:
    """Says nothing."""


# spreads


def test_a_spread_has_a_ratio_for_each_seed() -> None:
    spread = Spread(ours=[2.0, 3.0, 1.0], peer=[1.0, 2.0, 1.0])
    assert spread.ratios == [2.0, 1.5, 1.0]
    figure = spread.figure("wait", "s", "central", Goal("ratio", "<=", 1.5))
    assert (figure.value, figure.peer_value, figure.ratio) == (2.0, 1.0, 1.5)
    assert (figure.least, figure.most, figure.passed) == (1.0, 2.0, True)


def test_a_peer_of_nothing_is_no_peer() -> None:
    with pytest.raises(BenchError, match="nothing to compare with"):
        _ = Spread(ours=[0.0, 1.0], peer=[0.0, 1.0]).ratio


def test_a_number_without_a_peer_is_told_by_the_worst_seed_where_none_may_be_bad() -> None:
    none = Goal("value", "<=", 0.0)
    assert alone([0.0, 0.0, 2.0], "came back", "tasks", none).passed is True
    figure = alone([0.0, 0.0, 2.0], "came back", "tasks", none, max)
    assert (figure.value, figure.least, figure.most, figure.passed) == (2.0, 0.0, 2.0, False)


# trials


@pytest.mark.parametrize("side", SIDES)
def test_the_same_trial_is_the_same_run(side: str) -> None:
    trial = replace(TRIAL, side=side, submitters=2, burst=10.0)
    assert measure(trial) == measure(trial)
    assert measure(replace(trial, seed=2)) != measure(trial)


def test_a_check_at_the_write_leaves_no_slot_free_while_a_task_waits() -> None:
    equal = replace(TRIAL, speeds=(1.0,) * 3, submitters=3, jobs=2_000)
    ours, central, alone = (
        measure(replace(equal, side=side)).mean_wait for side in (NXS, CENTRAL, UNCHECKED)
    )
    assert ours == pytest.approx(central)
    assert alone > central


def test_trials_are_run_once_each_in_other_processes() -> None:
    trials = [replace(TRIAL, seed=seed) for seed in (1, 2, 1)]
    said: list[str] = []
    seen = measure_all(trials, said.append, "S0")
    assert seen == {trial: measure(trial) for trial in trials}
    assert said == ["S0: run 1 of 2", "S0: run 2 of 2"]


# scenarios: what they make of what was seen


def slow_at(age: float) -> object:
    """Everybody waits 1 s; NXS waits 3 s at one age, and the literal reading 200 s."""

    def measured(trials: Iterable[Trial], say: Say, name: str) -> dict[Trial, Seen]:
        def seen(trial: Trial) -> Seen:
            if trial.side == "literal":
                return Seen(mean_wait=200.0, p99_sojourn=200.0)
            late = trial.side == NXS and trial.age == age
            return Seen(mean_wait=3.0 if late else 1.0, p99_sojourn=3.0 if late else 1.0)

        return {trial: seen(trial) for trial in trials}

    return measured


def test_the_herd_is_told_by_its_worst_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herd, "measure_all", slow_at(30.0))
    figures = {figure.metric: figure for figure in herd.run(silent)}
    worst = figures["S1 NXS worst"]
    assert (worst.ratio, worst.passed) == (3.0, False)
    assert figures["S1 unchecked worst"].ratio == 1.0
    assert figures["S1 literal 10 s"].ratio == 200.0


def test_the_herd_is_seen_at_every_age_load_and_number_of_submitters() -> None:
    seen = {(t.rho, t.scv, t.age, t.submitters) for t in herd._combinations()}
    assert len(seen) == len(INSTANCES) * 2 * len(AGES) * 2
    assert {len(t.speeds) for t in herd._combinations()} == {2, 8, 16}


def test_unequal_machines_are_compared_with_others_that_see_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Trial] = []

    def measured(trials: Iterable[Trial], say: Say, name: str) -> dict[Trial, Seen]:
        asked.extend(trials)
        slow = {NXS: 1.01, CENTRAL: 1.0}
        return {t: Seen(mean_wait=0.0, p99_sojourn=slow.get(t.side, 2.0)) for t in asked}

    monkeypatch.setattr(speeds, "measure_all", measured)
    figures = list(speeds.run(silent))
    assert [figure.passed for figure in figures] == [True] * 12
    assert {t.age for t in asked if t.side not in (NXS, CENTRAL)} == {0.0}


def test_the_sides_of_real_workers_take_turns_at_being_first() -> None:
    names = [[s.name for s in workers._turned(workers.KINDS, n)] for n in range(3)]
    assert sorted(turn[0] for turn in names) == sorted(kind.name for kind in workers.KINDS)
    assert all(sorted(turn) == sorted(names[0]) for turn in names)


# a backlog (S4)


def test_the_least_time_and_the_fewest_moves_of_a_backlog() -> None:
    fixed, changing = backlog.Drain(seed=1), backlog.Drain(seed=1, changes=True)
    assert (backlog.bound(fixed), backlog.least_moved(fixed)) == (625.0, 7500.0)
    # 120 s × 20 more slots' worth of work by the fifth: what 4 × 4 slots do in 30 s less.
    assert (backlog.bound(changing), backlog.least_moved(changing)) == (595.0, 7620.0)


def test_a_drained_backlog_is_told_by_its_worst_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_all(measure: Any, trials: Iterable[backlog.Drain], *rest: Any) -> dict[Any, Any]:
        good = backlog.Drained(
            took=650.0, moved=7_500, stolen=0, returned=0, inversions=0, least_gap=60.0
        )
        bad = replace(good, returned=1, inversions=2, least_gap=59.0)
        return {t: bad if t.seed == 3 and not t.steals else good for t in trials}

    monkeypatch.setattr(backlog, "run_all", run_all)
    figures = {figure.metric: figure for figure in backlog.run(silent)}
    assert figures["S4 four stay"].ratio == pytest.approx(1.04)
    assert figures["S4 one joins, one leaves"].passed is False
    for name in ("S4 came back", "S4 inversions", "S4 between two migrations"):
        assert figures[name].passed is False


def test_a_small_backlog_is_done_sooner_with_thieves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "TASKS", 400)
    stealing, alone_ = (backlog.drain(backlog.Drain(seed=1, steals=s)) for s in (True, False))
    assert (stealing.stolen > 0, alone_.stolen) == (True, 0)
    assert 25.0 <= stealing.took < alone_.took


# warm caches (S5)


@pytest.mark.parametrize("side", caches.WORLDS)
def test_every_side_of_the_caches_has_the_same_jobs(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "JOBS", 400)
    trial = caches.Warm(side=side, repeat=0.6, seed=1)
    found = caches.measure(trial)
    assert found == caches.measure(trial)
    assert 0.0 < found.hits < 100.0
    assert found.load >= 1.0


def test_keys_bring_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "JOBS", 800)
    ours, without = (
        caches.measure(caches.Warm(side=side, repeat=0.6, seed=1)).hits
        for side in (NXS, caches.PLAIN)
    )
    assert ours > 1.5 * without


# an instance that is ill (S6)


def test_an_instance_that_fails_is_stopped_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "JOBS", 2_000)
    ours, kept = (holes.measure(holes.Ill(side=side, seed=1)) for side in (NXS, holes.KEPT))
    assert ours.ejections > 0
    assert 5 <= ours.before <= 20
    assert (kept.ejections, kept.before) == (0, round(kept.lost * 20))
    assert kept.lost > 5 * ours.lost > 0.0


def test_a_task_that_fails_everywhere_is_no_loss_to_one_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holes, "JOBS", 2_000)
    seen = holes.measure(holes.Ill(side=NXS, what=holes.WELL, bad=True, seed=1))
    assert (seen.lost, seen.ejections) == (0.0, 0)
