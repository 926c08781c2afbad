"""Real workers: what they tell of their tasks, and what becomes of a task that found no room."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.state import State
from tests.integration.live import PATIENCE_S, Live, shop_app

pytest_plugins = ["tests.integration.live_fixtures"]
APP = "tests.integration.wants_fleet"
GB = 10**9


@pytest.fixture
def shop(live: Live) -> Iterator[Any]:
    with shop_app(live) as module:
        yield module


def until_heard_of(live: Live) -> None:
    live.until(lambda: any(i.beat_at for i in live.snapshot().instances), "a heartbeat")


def test_a_worker_tells_what_its_tasks_declare_and_which_it_can_never_run(live: Live) -> None:
    live.env |= {"NXS_TAGS": "ssd, fast", "NXS_TASK_MEMORY": "8"}
    live.worker("w1@t", 1, app=APP)
    until_heard_of(live)
    profile = live.instance("w1@t").profile
    assert profile is not None
    assert (profile.tags, profile.memory) == (("fast", "ssd"), 8 * GB)
    assert profile.traits == {
        "wants.gpu": Traits(needs=("gpu",)),
        "wants.slots": Traits(slots=2),
        "wants.memory": Traits(memory=6 * GB),
        "wants.too_much": Traits(memory=900 * GB),
        "wants.model": Traits(affinity="model:{model}", arguments=("model", "seconds")),
    }
    assert profile.unable == {
        "wants.gpu": "has no tag 'gpu', which the task needs",
        "wants.slots": "has 1 slots, and the task takes 2",
        "wants.too_much": "has 8 GB for tasks, and the task takes 900 GB",
    }
    assert profile.tasks >= {"wants.nothing", "wants.memory", "wants.model"}
    assert profile.tasks.isdisjoint(profile.unable)


def test_without_a_setting_the_memory_is_the_machine_s_own(live: Live) -> None:
    live.worker("w1@t", 2, app=APP)
    until_heard_of(live)
    instance = live.instance("w1@t")
    assert instance.profile is not None
    assert instance.profile.memory == instance.load.memory_total


def test_a_worker_with_a_task_that_declares_nonsense_does_not_start(live: Live) -> None:
    worker = live.worker("w1@t", 1, app="tests.integration.bad_wants_fleet")
    assert worker.wait() != 0
    assert "task wants.nonsense: memory='much': expected bytes" in worker.log
    assert "Traceback" not in worker.log
    assert live.snapshot().instances == ()


def test_what_is_kept_when_its_worker_ends_goes_to_another(live: Live, shop: Any) -> None:
    live.control_plane()
    first = live.worker("w1@t", 2, app=APP)
    live.until_state(State.ACTIVE, "w1@t")
    one = shop.fleet.submit("wants.nothing", (4.0,)).id
    live.until(lambda: live.instance("w1@t").inflight == 1, "it runs")
    wide = shop.fleet.submit("wants.slots", (0.1,)).id
    live.until(lambda: live.instance("w1@t").inflight == 2, "it is held until there is room")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    live.worker("w2@t", 2, app=APP)
    results = [shop.app.AsyncResult(id_).get(timeout=PATIENCE_S) for id_ in (one, wide)]
    assert [where for where, _, _ in results] == ["w1@t", "w2@t"]
