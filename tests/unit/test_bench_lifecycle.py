"""The simulated fleet of the bench `lifecycle`: nodes, ticks, and those who watch. Short runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import exp, isnan, log10
from random import Random

import pytest

from bench.lifecycle import crash_loops, deploys
from bench.lifecycle.crash_loops import CRASH_LOOP, NO_RULE, NXS, Crashing
from bench.lifecycle.damping import RULES, CrashLoop, literal, most, rfc2439, total_s
from bench.lifecycle.faults import FAULTS
from bench.lifecycle.figures import NONE, figure
from bench.lifecycle.fleet import EPOCH_S, OURS, SETTINGS, Fleet, Stall
from bench.lifecycle.node import ZIPF_MOST_S, zipf
from bench.lifecycle.records import Move
from bench.lifecycle.trial import FIXED, KUBERNETES, PEERS, PHI, Trial, fleet_of, measure
from bench.lifecycle.watchers import (
    DEVIATIONS,
    Clock,
    Intervals,
    Kubernetes,
    Look,
    Phi,
    Timeout,
    Watcher,
)
from nxs_tasks.model.state import Event, State

HOUR = 3600.0
SHORT = Trial(fault="losses", loss=0.1, seed=1, size=12, seconds=2 * HOUR)


def states(fleet: Fleet) -> dict[str, State]:
    return {name: record.state for name, record in fleet.records.by_name.items()}


def history(fleet: Fleet) -> list[Move]:
    return fleet.records.moves


# runs


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_trial_is_the_same_run(fault: str) -> None:
    trial = replace(SHORT, fault=fault)
    assert history(fleet_of(trial)) == history(fleet_of(trial))
    assert history(fleet_of(trial)) != history(fleet_of(replace(trial, seed=2)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_tick_that_is_not_evaluated_would_have_decided_nothing(fault: str, loss: float) -> None:
    trial = replace(SHORT, fault=fault, loss=loss, zipf=True)
    skipping, asking = fleet_of(trial), fleet_of(replace(trial, skip=False))
    assert history(skipping) == history(asking)
    assert skipping.verdicts == asking.verdicts
    assert skipping.evaluated < asking.evaluated


def test_a_healthy_fleet_becomes_active_and_stays_it() -> None:
    fleet = Fleet(1, 5)
    fleet.begin()
    fleet.run(600.0)
    assert set(states(fleet).values()) == {State.ACTIVE}
    assert [m.event for m in history(fleet)] == [Event.JOINED] * 5 + [Event.CONFIRMED] * 5


@pytest.mark.parametrize(
    ("what", "events", "within"),
    [
        ("kill", [Event.SILENT_CLOSED], (5.0, 15.1)),
        ("lose_power", [Event.SILENT_CONNECTED, Event.TERMINATED], (25.0, 35.1)),
    ],
)
def test_a_loss_is_found(what: str, events: list[Event], within: tuple[float, float]) -> None:
    fleet = Fleet(1, 5)
    node = fleet.nodes["w002"]
    node.at(fleet.begin() + 100.0, getattr(node, what))
    fleet.run(600.0)
    assert [m.event for m in history(fleet)[10:]] == events
    ours = fleet.verdicts[OURS]
    assert (ours.deaths, ours.suspicions, len(ours.detected_s)) == (0, 0, 1)
    assert within[0] < ours.detected_s[0] < within[1]


def test_who_stands_still_is_suspected_and_then_evicted_though_it_lives() -> None:
    fleet = Fleet(1, 5)
    node = fleet.nodes["w002"]
    node.at(fleet.begin() + 100.0, partial(node.freeze, seconds=90.0))
    fleet.run(600.0)
    assert (fleet.verdicts[OURS].suspicions, fleet.verdicts[OURS].deaths) == (1, 1)
    assert states(fleet)["w002"] is State.ACTIVE, "it has come back as another epoch"
    assert node.epoch == 2


def test_a_restart_that_is_announced_is_no_loss() -> None:
    fleet = Fleet(1, 5)
    node = fleet.nodes["w002"]
    start = fleet.begin()
    node.at(start + 100.0, partial(node.terminate, drain_s=20.0))
    node.at(start + 140.0, node.start)
    fleet.run(600.0)
    events = [m.event for m in history(fleet)[10:]]
    assert events == [Event.SHUTDOWN, Event.DRAINED, Event.JOINED, Event.CONFIRMED]
    assert fleet.records.by_name["w002"].losses == []


def test_a_stall_between_look_and_act_acts_late() -> None:
    fleet = Fleet(1, 5)
    fleet.begin()
    node = fleet.nodes["w002"]
    node.at(EPOCH_S + 95.5, node.kill)
    fleet.stalls.append(Stall(EPOCH_S + 104.0, EPOCH_S + 164.0, acting=True))
    fleet.run(600.0)
    [gone] = [m for m in history(fleet) if m.event is Event.SILENT_CLOSED]
    assert gone.at == pytest.approx(EPOCH_S + 164.0, abs=0.5)


def test_a_delay_by_zipf_is_bounded_and_mostly_short() -> None:
    rng = Random(1)
    delays = sorted(zipf(rng) for _ in range(10_000))
    assert delays[0] == 0.05
    assert delays[5_000] <= 0.1
    assert 5.0 < delays[9_960] <= delays[-1] <= ZIPF_MOST_S


def test_every_side_finds_every_loss_that_lasts() -> None:
    told = measure(replace(SHORT, loss=0.0, seconds=6 * HOUR))
    assert set(told) == {OURS, *PEERS}
    assert not any(isnan(side.p99_s) for side in told.values())
    assert told[PHI].p50_s < told[OURS].p50_s < told[KUBERNETES].p50_s


# watchers

NAMES = ("a", "b", "c")


def look(watcher: Watcher, at: float, *heard: str) -> set[str]:
    seen = Look(at, {name: [at - 0.1] if name in heard else [] for name in NAMES})
    watcher.read(seen)
    watcher.judge(seen)
    return set(watcher.out)


def test_a_fixed_time_out_believes_its_clock() -> None:
    right = Timeout(NAMES, Clock())
    wrong = Timeout(NAMES, Clock([(20.0, 600.0)]))
    assert look(right, 10.0, *NAMES) == look(wrong, 10.0, *NAMES) == set()
    assert look(right, 21.0, "a") == set()
    assert look(wrong, 21.0, "a") == {"b", "c"}
    assert look(right, 41.0, "a") == {"b", "c"}


def test_phi_follows_the_intervals() -> None:
    even, uneven = Phi(Intervals(NAMES, 5.0)), Phi(Intervals(NAMES, 5.0))
    for n in range(200):
        look(even, 5.0 * n, *NAMES)
        look(uneven, 5.0 * n, *(NAMES if n % 3 else ()))
    assert look(even, 1005.0) == set(NAMES)
    assert look(uneven, 1005.0) == set()
    assert look(uneven, 1100.0) == set(NAMES)


def test_phi_is_8_where_pekko_says_so() -> None:
    # phi = -log10(e / (1 + e)), e = exp(-y (1.5976 + 0.070566 y²)), for y deviations.
    e = exp(-DEVIATIONS * (1.5976 + 0.070566 * DEVIATIONS**2))
    assert -log10(e / (1 + e)) == pytest.approx(8.0)


def test_kubernetes_evicts_one_in_ten_seconds_and_stops_where_most_are_not_ready() -> None:
    few, most_of_all = Kubernetes(NAMES), Kubernetes(NAMES)
    for n in range(200):
        look(few, 5.0 * n, "a", "b")
        look(most_of_all, 5.0 * n, "a")
    assert (set(few.out), few.dead) == ({"c"}, {"c"})
    assert (set(most_of_all.out), most_of_all.dead) == ({"b", "c"}, set())
    many = Kubernetes(map(str, range(10)))
    dead = []
    for n in range(76):
        seen = Look(5.0 * n, {str(i): [5.0 * n] for i in range(5)})
        many.judge(seen)
        dead.append(len(many.dead))
    assert [dead[n] for n in (68, 69, 70, 71, 72)] == [0, 1, 1, 2, 2]


# damping


def moves(*times: float, target: State = State.GONE) -> Iterable[Move]:
    return [Move(at, "a", 1, State.ACTIVE, target, Event.SILENT_CLOSED) for at in times]


def test_the_letter_counts_any_transition() -> None:
    assert literal(moves(1.0, 2.0, 3.0)) == {"a": []}
    assert literal(moves(1.0, 2.0, 3.0, 4.0)) == {"a": [(4.0, 64.0)]}
    again = literal(moves(1.0, 2.0, 3.0, 4.0, 50.0, 70.0, 71.0, 72.0, 73.0))
    assert again == {"a": [(4.0, 64.0), (73.0, 373.0)]}


def test_rfc_2439_suppresses_and_reuses() -> None:
    assert rfc2439(moves(0.0, 900.0)) == {"a": []}, "1500"
    [(since, until)] = rfc2439(moves(0.0, 1.0, 2.0))["a"]
    assert since == 2.0
    assert until == pytest.approx(2.0 + 1800.0, abs=5.0), "3000 halves twice until 750"
    assert total_s({"a": [(since, until)]}, 102.0) == 100.0
    assert most({"a": [(2.0, 9.0)], "b": [(8.0, 10.0)]}, [1.0, 8.5, 9.5]) == 2


def test_a_crash_loop_waits_twice_as_long_each_time() -> None:
    waits = CrashLoop()
    assert [waits.wait_s(30.0) for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    assert waits.wait_s(700.0) == 10


# scenarios


def test_a_rolling_restart_withholds_nobody() -> None:
    cost = deploys.measure(deploys.Planned(deploy=True, seed=1))
    assert (cost.withheld_s["NXS"], cost.losses) == (0.0, 0)
    assert set(cost.withheld_s) == {"NXS", *RULES, deploys.CRASH_LOOP}
    assert cost.withheld_s["the letter"] > 0.0


def test_a_wave_of_load_flaps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploys, "WAVES_S", 900.0)
    monkeypatch.setattr(deploys, "WAVES", 5)
    cost = deploys.measure(deploys.Planned(deploy=False, seed=1))
    assert (cost.flaps, cost.withheld_s["NXS"]) == (0, 0.0)
    assert cost.letter_flaps > 0


def test_a_wave_is_as_busy_as_it_should_be() -> None:
    wave = deploys.Wave(Random(1))
    for n in range(4_000):
        wave.load(EPOCH_S + 30.0 * n)
    shares = [share for _, share in wave.shares]
    assert sum(shares) / len(shares) == pytest.approx(deploys.RHO, abs=0.03)


@pytest.mark.parametrize("away_s", [crash_loops.SOON_S, crash_loops.LATER_S])
def test_a_crash_loop_gets_its_back_offs(monkeypatch: pytest.MonkeyPatch, away_s: float) -> None:
    monkeypatch.setattr(crash_loops, "ONE_S", 2000.0)
    monkeypatch.setattr(crash_loops, "SIZE", 10)
    seen = {
        side: crash_loops.measure(Crashing(side=side, away_s=away_s, seed=1))
        for side in (NXS, NO_RULE, CRASH_LOOP)
    }
    assert seen[NXS].offs[:3] == SETTINGS.back_offs
    assert (seen[NXS].not_obeyed, seen[NXS].innocent) == (0, 0)
    assert seen[NO_RULE].offs == seen[CRASH_LOOP].offs == ()
    assert seen[NXS].shares[NXS] < seen[NO_RULE].shares[NO_RULE]


def test_a_figure_of_seeds_has_its_bounds() -> None:
    told = figure("deaths", [0, 2, 1], "", NONE, of=max, peer=(FIXED, [3, 4, 5]))
    assert (told.value, told.least, told.most, told.peer_value) == (2, 0, 2, 5)
    assert told.passed is False
