"""Who is spared by the story of eviction, and by what the state machine says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from nxs_tasks.control.evicting import STEPS
from nxs_tasks.control.workflows import EVICT, evict_zombie
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.eviction import ending, spared
from nxs_tasks.policy.fleet.lifecycle import evaluate
from tests.unit.builders import NOW, a_snapshot, an_instance, case, knobs

SETTINGS = knobs()


def zombie(silent_for: float = 61.0, **record: Any) -> Instance:
    return an_instance(state=State.ZOMBIE, silent_for=silent_for, **record)


def wanted(*instances: Instance) -> tuple[Event | None, str]:
    move, why_not = ending("w1", evaluate(a_snapshot(*instances), SETTINGS, NOW))
    return (None if move is None else move.event), why_not


@pytest.mark.parametrize(
    ("instance", "why"),
    [
        case("it is a silent zombie", zombie(31), ""),
        case("its record is gone", None, "no record"),
        case("another process has the name", zombie(epoch=2), "epoch 2"),
        case("it has joined again", an_instance(state=State.JOINING), "alive again, JOINING"),
        case("it leaves", an_instance(state=State.LEAVING), "alive again, LEAVING"),
        case("it is over", an_instance(state=State.GONE), "GONE already"),
        case("it is heard again", zombie(3), "last heartbeat came 3 s ago"),
    ],
)
def test_who_is_spared(instance: Instance | None, why: str) -> None:
    reason = spared(instance, 1, SETTINGS, NOW)
    assert why in reason
    assert bool(reason) is bool(why)


def test_the_state_machine_says_when() -> None:
    assert wanted(zombie(59)) == (None, "no heartbeat for 59 s, still 2 connection(s)")
    assert wanted(zombie(61)) == (Event.TERMINATED, "")
    assert wanted(zombie(61, connections=0)) == (Event.SILENT_CLOSED, "")


def test_one_witness_is_not_enough() -> None:
    event, why_not = wanted(zombie(61, connections=None))
    assert event is None
    assert "cannot say" in why_not


def test_a_suspected_observer_evicts_nobody() -> None:
    crowd = [an_instance(f"w{n}", silent_for=61.0, state=State.ZOMBIE) for n in range(1, 6)]
    event, why_not = wanted(*crowd)
    assert event is None
    assert "the observer is suspected" in why_not


def test_the_story_in_its_order() -> None:
    app = Celery(set_as_current=False)
    steps = evict_zombie(app, "w1@t", 3, grace_s=30.0, expires_s=60.0).tasks
    assert [step.task.removeprefix(EVICT) for step in steps] == ["ask", "cut", "end"]
    assert [step.options.get("countdown") for step in steps] == [None, 30.0, None]
    assert [step.options["expires"] for step in steps] == [60.0, 90.0, 60.0]
    assert all(step.args == ("w1@t", 3) and step.immutable for step in steps)
    app.close()


def test_the_story_is_shown_by_a_folder_that_is_not_installed() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "workflows.evict_zombie"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert [line.partition(" ")[0] for line in shown.splitlines()] == [
        f"{EVICT}{step}" for step in STEPS
    ]
    setup = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["packages"]["find"]["include"] == ["nxs_tasks*"]
