"""The seeded plan and the seeded work of the chaos harness."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from chaos.plan import MODES, plan
from chaos.workload import jobs

FREEZE_S = (0.5, 12.0)


def test_the_same_seed_is_the_same_plan() -> None:
    first, second, other = (plan(seed, 50, MODES, 2.0, FREEZE_S) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_the_plan_has_every_mode_and_as_many_kills_as_asked() -> None:
    counts = Counter(act.mode for act in plan(1, 500, MODES, 2.0, FREEZE_S))
    assert counts["hard"] == 500
    assert set(counts) == set(MODES)
    assert Counter(act.mode for act in plan(1, 1, MODES, 2.0, FREEZE_S)) == dict.fromkeys(MODES, 1)


def test_only_modes_that_are_wanted_occur() -> None:
    assert {act.mode for act in plan(1, 20, ("hard", "cut"), 2.0, FREEZE_S)} == {"hard", "cut"}


def test_acts_come_in_order_and_at_the_pace() -> None:
    acts = plan(3, 400, ("hard",), 4.0, FREEZE_S)
    assert acts == sorted(acts, key=lambda act: act.at)
    assert 95.0 < acts[-1].at <= 100.0


def test_both_variants_of_each_act_occur() -> None:
    acts = plan(1, 500, MODES, 2.0, FREEZE_S)
    assert {act.renamed for act in acts} == {True, False}
    assert {act.alone for act in acts if act.mode == "hard"} == {True, False}
    assert not any(act.alone for act in acts if act.mode != "hard")
    assert {act.share == 1.0 for act in acts} == {True, False}
    frozen = [act.last_s for act in acts if act.mode == "stop"]
    assert min(frozen) < 3.0 < 9.0 < max(frozen)


def test_the_work_of_a_seed_is_always_the_same_and_mixed() -> None:
    first = list(islice(jobs("1"), 2000))
    assert first == list(islice(jobs("1"), 2000))
    assert first[:10] != list(islice(jobs("2"), 10))
    assert len({job.id for job in first}) == 2000
    options = Counter(name for job in first for name in job.options)
    assert set(options) == {"countdown", "priority"}
    assert {job.name for job in first} == {"chaos.work", "chaos.again"}
    assert 0 < sum(job.seconds > 0.1 for job in first) < 100


@pytest.mark.parametrize("kills", [1, 10, 500])
def test_the_pace_holds_for_any_number_of_kills(kills: int) -> None:
    acts = plan(5, kills, MODES, 2.0, FREEZE_S)
    assert max(act.at for act in acts) <= len(acts) / 2.0
