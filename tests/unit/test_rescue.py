"""Whose messages are given to others: of every process that is gone, and of no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.decision import Rescue
from nxs_tasks.model.holder import Holder
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.policy.fleet.rescue import rescue, why_gone
from tests.unit.builders import a_snapshot, an_instance, case, examples

LIVING = [s for s in State if s not in ENDED]


def a_holder(instance: str = "w1", epoch: int = 1, held: int = 2) -> Holder:
    return Holder(instance=instance, epoch=epoch, held=held)


def a_fleet(*instances: Instance, holders: tuple[Holder, ...] = ()) -> Snapshot:
    return replace(a_snapshot(*instances), holders=holders)


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        case("its instance is GONE", [an_instance(state=State.GONE)], "its instance is GONE"),
        case(
            "its instance has FAILED", [an_instance(state=State.FAILED)], "its instance is FAILED"
        ),
        case(
            "its name is another process's",
            [an_instance(epoch=2)],
            "its name belongs to a process with epoch 2",
        ),
        case(
            "its name was another process's, which is gone too",
            [an_instance(epoch=2, state=State.GONE)],
            "its name belongs to a process with epoch 2",
        ),
        case("there is no fleet", [], "there is no record of its instance"),
        case("only others are there", [an_instance("w2")], "there is no record of its instance"),
    ],
)
def test_a_process_is_gone_if(instances: list[Instance], reason: str) -> None:
    assert why_gone(a_holder(), a_fleet(*instances)) == reason
    [found] = rescue(a_fleet(*instances, holders=(a_holder(),)))
    assert found == Rescue(instance="w1", epoch=1, held=2, reason=reason, evidence={"held": 2})


@pytest.mark.parametrize("state", LIVING)
def test_who_is_part_of_the_fleet_keeps_what_it_holds(state: State) -> None:
    silent = an_instance(state=state, silent_for=9999, connections=0, stopped=True)
    assert why_gone(a_holder(), a_fleet(silent)) == ""
    assert rescue(a_fleet(silent, holders=(a_holder(),))) == []


def test_one_that_holds_nothing_any_more_is_named_too_so_that_it_is_forgotten() -> None:
    [found] = rescue(a_fleet(holders=(a_holder(held=0),)))
    assert (found.held, found.evidence) == (0, {"held": 0})


def test_each_process_of_a_name_is_judged_by_its_own_epoch() -> None:
    holders = tuple(a_holder(epoch=epoch) for epoch in (1, 2, 3))
    decisions = rescue(a_fleet(an_instance(epoch=3), holders=holders))
    assert [(d.instance, d.epoch) for d in decisions] == [("w1", 1), ("w1", 2)]


def test_without_a_full_look_nobody_is_judged() -> None:
    assert rescue(a_fleet(an_instance(state=State.GONE))) == []


names = st.sampled_from(("w1", "w2", "w3"))
epochs = st.integers(1, 3)
fleets = st.builds(
    lambda instances, holders: a_fleet(
        *(
            an_instance(name, state=state, epoch=epoch)
            for name, (state, epoch) in instances.items()
        ),
        holders=tuple(a_holder(name, epoch, held) for (name, epoch), held in holders.items()),
    ),
    st.dictionaries(names, st.tuples(st.sampled_from(State), epochs)),
    st.dictionaries(st.tuples(names, epochs), st.integers(0, 3)),
)


@examples(200)
@given(fleets)
def test_one_decision_for_each_process_that_is_gone_and_none_for_another(fleet: Snapshot) -> None:
    living = {(i.id, i.epoch) for i in fleet.instances if i.state not in ENDED}
    decisions = rescue(fleet)
    gone = [
        (h.instance, h.epoch, h.held) for h in fleet.holders if (h.instance, h.epoch) not in living
    ]
    assert [(d.instance, d.epoch, d.held) for d in decisions] == gone
    assert all(d.reason for d in decisions)
