"""A worker that was frozen, declared GONE, and wakes later commits nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord

from nxs_tasks.model.state import State
from tests.integration.fenced_live import SHOP, Told, fenced_app
from tests.integration.live import PATIENCE_S, Live, Process, live_fleet

pytestmark = pytest.mark.chaos

#: So that a frozen worker is given up after seconds and not after a minute.
HASTE = {
    "NXS_HEARTBEAT_PERIOD": "0.5",
    "NXS_JOIN_PERIOD": "0.2",
    "NXS_LIFECYCLE_PERIOD": "0.5",
    "NXS_SILENT_AFTER": "1.5",
    "NXS_GONE_AFTER": "1.5",
    "NXS_ZOMBIE_AFTER": "1.5",
    "NXS_EVICT_AFTER": "2.5",
}
VICTIM, HEIR = "w1@t", "w2@t"


class Scene:
    """A victim, an heir that comes later, and the app."""

    def __init__(self, live: Live, tasks: Any, pool: str) -> None:
        self.live, self.tasks, self.pool = live, tasks, pool
        self.told = Told(live, tasks)
        live.control_plane()
        self.victim = self.start(VICTIM)

    def start(self, name: str) -> Process:
        worker = self.live.worker(name, 1, "-P", self.pool, app=SHOP)
        self.live.until_state(State.ACTIVE, name)
        return worker

    def run_on_victim(self, submit: Callable[[], Any]) -> Any:
        """Submit, and wait until the victim runs it."""
        result = submit()
        self.live.until(lambda: len(self.told.starts()) == 1, "the victim to run it")
        assert self.told.starts()[0].endswith(VICTIM)
        return result

    def freeze(self, *, children: bool) -> None:
        """Freeze the victim; its pool processes as well, or not."""
        self._signal(signal.SIGSTOP, children)

    def wake(self, *, children: bool) -> None:
        self._signal(signal.SIGCONT, children)

    def _signal(self, number: int, children: bool) -> None:
        if children:
            os.killpg(self.victim.pid, number)
        else:
            self.victim.signal(number)

    def inherit(self) -> Process:
        """A second worker gets what the victim held, once that is GONE."""
        heir = self.start(HEIR)
        self.live.until_state(State.GONE, VICTIM)
        self.live.until(lambda: len(self.told.starts()) == 2, "the heir to run it")
        assert self.told.starts()[1].endswith(HEIR)
        return heir

    def until_logged(self, text: str) -> None:
        self.live.until(lambda: text in self.victim.log, f"{text!r} in the victim's log")

    def until_back(self) -> None:
        """The victim is part of the fleet again, with nothing in its hands."""
        self.live.until_state(State.ACTIVE, VICTIM)
        self.live.until(lambda: not self.live.instance(VICTIM).inflight, "empty hands")


@pytest.fixture(params=["prefork", "threads"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with live_fleet(tmp_path_factory.mktemp("zombie")) as live:
        live.env.update(HASTE)
        with fenced_app(live) as tasks:
            yield Scene(live, tasks, request.param)


def test_who_is_frozen_as_a_whole_and_wakes(scene: Scene) -> None:
    """The task goes on where it stood, while another process has done it meanwhile."""
    tasks, told = scene.tasks, scene.told
    result = scene.run_on_victim(lambda: chain(tasks.hold.s(), tasks.after.s())())
    scene.freeze(children=True)
    scene.inherit()
    told.end(HEIR)
    assert result.get(timeout=PATIENCE_S) == HEIR
    told.end(VICTIM)
    scene.wake(children=True)
    scene.until_back()
    assert result.parent.get(timeout=PATIENCE_S) == HEIR
    assert told.said() == [f"after {HEIR}"]


@pytest.mark.parametrize("scene", ["prefork"], indirect=True)
def test_whose_main_process_is_frozen_while_its_pool_goes_on(scene: Scene) -> None:
    """The task ends before the second run of it: nothing else is there that could win."""
    tasks, told = scene.tasks, scene.told
    result = scene.run_on_victim(lambda: chain(tasks.hold.s(), tasks.after.s())())
    first = result.parent
    scene.freeze(children=False)
    scene.inherit()
    told.end(VICTIM)
    scene.until_logged(f"result of fenced.hold[{first.id}] refused")
    scene.until_logged(f"fenced.hold[{first.id}] sends nothing more")
    assert (first.state, result.state, told.said()) == ("PENDING", "PENDING", [])
    told.end(HEIR)
    assert result.get(timeout=PATIENCE_S) == HEIR
    scene.wake(children=False)
    scene.until_back()
    assert first.get(timeout=PATIENCE_S) == HEIR
    assert told.said() == [f"after {HEIR}"]


@pytest.mark.parametrize("scene", ["prefork"], indirect=True)
def test_its_part_of_a_chord_is_not_counted(scene: Scene) -> None:
    tasks, told = scene.tasks, scene.told
    body = scene.run_on_victim(lambda: chord([tasks.hold.s()])(tasks.after.s()))
    scene.freeze(children=False)
    scene.inherit()
    told.end(VICTIM)
    scene.until_logged("refused: the message was taken from this process")
    assert (body.state, told.said()) == ("PENDING", [])
    told.end(HEIR)
    assert body.get(timeout=PATIENCE_S) == [HEIR]
    scene.wake(children=False)
    scene.until_back()
    assert told.said() == [f"after {[HEIR]}"]


def test_its_lock_is_free_when_it_is_given_up_and_stays_the_heirs(scene: Scene) -> None:
    tasks, told = scene.tasks, scene.told
    result = scene.run_on_victim(tasks.lead.delay)
    scene.freeze(children=True)
    scene.inherit()
    before = scene.live.store.client.hgetall(scene.live.store.keys.lock("till"))
    told.end(VICTIM)
    scene.wake(children=True)
    scene.until_back()
    assert scene.live.store.client.hgetall(scene.live.store.keys.lock("till")) == before
    told.end(HEIR)
    assert result.get(timeout=PATIENCE_S) == HEIR
    numbers = [int(line.rpartition(" ")[2]) for line in told.said()]
    assert [line.split()[0] for line in told.said()] == [VICTIM, HEIR]
    assert numbers[0] < numbers[1]


def test_what_it_gets_afterwards_counts(scene: Scene) -> None:
    tasks, told = scene.tasks, scene.told
    result = scene.run_on_victim(tasks.hold.delay)
    scene.freeze(children=True)
    heir = scene.inherit()
    told.end(HEIR)
    assert result.get(timeout=PATIENCE_S) == HEIR
    told.end(VICTIM)
    scene.wake(children=True)
    scene.until_back()
    heir.signal(signal.SIGTERM)
    assert heir.wait() == 0
    again = chain(tasks.hold.s(), tasks.after.s())()
    assert again.get(timeout=PATIENCE_S) == VICTIM
    assert told.said() == [f"after {VICTIM}"]
