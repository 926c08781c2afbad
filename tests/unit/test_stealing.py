"""Whose waiting tasks an idle instance takes, and why it takes none."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.decision import Nothing, Steal
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.stealing import steal
from tests.unit.builders import (
    NOW,
    SHARED,
    TASK,
    UNKNOWN_LOAD,
    a_load,
    a_snapshot,
    an_instance,
    case,
)
from tests.unit.placing import SPEC

IN_VAIN = "nothing waits that its own instance could not start"
OTHER = "shop.report"


def decided(thief: Instance, *others: Instance) -> Steal | Nothing:
    return steal(thief, a_snapshot(thief, *others), SPEC)


def victim_of(thief: Instance, *others: Instance) -> str | None:
    found = decided(thief, *others)
    return found.victims[0] if isinstance(found, Steal) else None


def busy(name: str = "w1", queued: int | None = 3, **known: Any) -> Instance:
    """One whose slots are all taken, and for which so many wait."""
    return an_instance(name, **{"slots": 2, "held": 2, "queued": queued, **known})


def idle(name: str = "w9", **known: Any) -> Instance:
    return an_instance(name, **known)


def test_an_idle_one_takes_what_waits_for_one_that_is_busy() -> None:
    thief = idle(epoch=7)
    assert decided(thief, busy()) == Steal(
        instance="w9",
        epoch=7,
        source=State.ACTIVE,
        victims=("w1",),
        names=None,
        reason="is idle, and 3 task(s) wait for w1",
        evidence={"waiting": 3, "held": 2, "slots": 2},
    )


@pytest.mark.parametrize(
    ("line", "stolen"),
    [
        case("all its slots are taken", busy(), True),
        case("more than its slots", busy(held=5), True),
        case("one slot is free: it is about to take them", busy(held=1), False),
        case("it is idle itself", busy(held=0), False),
        case("nothing waits", busy(queued=0), False),
        case("how much waits is unknown", busy(queued=None), False),
        case("its slots are unknown", busy(slots=None), True),
        case("what it holds is unknown", busy(held=None), True),
        case("nothing is known of its load", busy(held=0, load=UNKNOWN_LOAD), True),
        case("what it can run is unknown", busy(held=0, knows=None), True),
        case("what waits for its time takes a slot", busy(held=1, waiting=1), True),
        case(
            "tasks that declare more fill it",
            busy(held=1, load=a_load(slots=2, extra=1)),
            True,
        ),
        case("joining, with free slots", busy(held=0, state=State.JOINING), True),
        case("leaving, with free slots", busy(held=0, state=State.LEAVING), True),
        case("a zombie", busy(held=0, state=State.ZOMBIE), True),
        case("gone", busy(held=0, state=State.GONE), True),
        case("degraded, with free slots", busy(held=0, state=State.DEGRADED), False),
        case("degraded and busy", busy(state=State.DEGRADED), True),
        case("silent", busy(held=0, silent_for=16), True),
        case("takes no work", busy(held=0, consuming=False), True),
        case("stopped", busy(held=0, stopped=True), True),
        case("ejected", busy(held=0, ejected_until=NOW + 9), True),
        case("was ejected", busy(held=0, ejected_until=NOW - 9), False),
        case("it knows no task of ours", busy(knows=[OTHER]), False),
        case("it knows none at all", busy(knows=[]), False),
    ],
)
def test_whose_line_is_taken_from(line: Instance, stolen: bool) -> None:
    assert victim_of(idle(), line) == ("w1" if stolen else None)
    if not stolen:
        found = decided(idle(), line)
        assert isinstance(found, Nothing)
        assert found.reason == IN_VAIN


@pytest.mark.parametrize(
    ("thief", "why"),
    [
        case("joining", idle(state=State.JOINING), "is JOINING"),
        case("degraded", idle(state=State.DEGRADED), "is DEGRADED"),
        case("leaving", idle(state=State.LEAVING), "is LEAVING"),
        case("a zombie", idle(state=State.ZOMBIE), "is ZOMBIE"),
        case("gone", idle(state=State.GONE), "is GONE"),
        case("stopped", idle(stopped=True), "its process has stopped"),
        case(
            "ejected",
            idle(ejected_until=NOW + 9, ejected_why="all fails"),
            "ejected for 9 s more: all fails",
        ),
        case("silent", idle(silent_for=16), "silent for 16 s"),
        case("takes no work", idle(consuming=False), "its consumer takes no work"),
        case("not of the shared queue", idle(consumes=["mail"]), f"does not consume {SHARED}"),
        case("what it can run is unknown", idle(knows=None), "its registered tasks are unknown"),
        case("its slots are unknown", idle(slots=None), "its free slots are unknown"),
    ],
)
def test_who_takes_nothing_from_others(thief: Instance, why: str) -> None:
    found = decided(thief, busy())
    assert isinstance(found, Nothing)
    assert found.reason == f"takes nothing from others: {why}"
    assert (found.instance, found.epoch, found.source) == ("w9", 1, thief.state)


def test_an_own_line_is_no_other_s() -> None:
    """The worker says itself when it is idle; here its line is not looked at."""
    assert victim_of(busy("w9", queued=9)) is None
    assert victim_of(busy("w9", queued=9), busy(queued=1)) == "w1"


def test_the_longest_line_wins_and_of_equal_ones_the_lower_id() -> None:
    assert victim_of(idle(), busy("w1", 3), busy("w2", 5), busy("w3", 4)) == "w2"
    assert victim_of(idle(), busy("w3", 5), busy("w2", 5), busy("w10", 5)) == "w10"


def test_the_longest_one_that_may_be_taken_from() -> None:
    fleet = [
        busy("w1", 9, knows=[OTHER]),
        busy("w2", 8, held=0),
        busy("w3", 2),
    ]
    assert victim_of(idle(), *fleet) == "w3"


@pytest.mark.parametrize(
    ("mine", "theirs", "names"),
    [
        case("the same tasks: all of them", [TASK, OTHER], [TASK, OTHER], None),
        case("it knows more: all of them", [TASK, OTHER], [TASK], None),
        case("it knows some: those", [TASK], [TASK, OTHER], {TASK}),
        case("each knows another one too", [TASK, "mine"], [TASK, OTHER], {TASK, "mine"}),
        case("what the other knows is unknown: what it knows itself", [TASK], None, {TASK}),
    ],
)
def test_what_may_be_taken(
    mine: list[str], theirs: list[str] | None, names: set[str] | None
) -> None:
    found = decided(idle(knows=mine), busy(knows=theirs))
    assert isinstance(found, Steal)
    assert found.names == names


def test_nothing_is_there() -> None:
    found = decided(idle())
    assert isinstance(found, Nothing)
    assert found.reason == IN_VAIN


def test_it_looks_into_several_lines_for_nothing_of_the_longest_may_be_for_it() -> None:
    lines = [an_instance(f"w{n}", slots=1, held=1, queued=n) for n in range(1, 8)]
    thief = an_instance("w0")
    found = steal(thief, a_snapshot(thief, *lines), SPEC)
    assert isinstance(found, Steal)
    assert found.victims == ("w7", "w6", "w5", "w4")


def test_a_line_of_which_it_knows_only_what_every_worker_knows_is_none() -> None:
    line = an_instance("w1", slots=1, held=1, queued=9, knows=["shop.gpu", "celery.chord"])
    thief = an_instance("w0", knows=["shop.pay", "celery.chord"])
    assert isinstance(steal(thief, a_snapshot(thief, line), SPEC), Nothing)
