"""A real fleet of three instances with different slots, its control plane, and Flower."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group

from nxs_tasks.cli.server import free_port
from nxs_tasks.model.state import State
from tests.integration.live import APP, PATIENCE_S, Live, live_fleet, shop_app

SLOTS = {"w1@t": 1, "w2@t": 2, "w3@t": 3}
LENGTH_S = 1.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_fleet(tmp_path_factory.mktemp("live")) as live:
        live.control_plane()
        for name, slots in SLOTS.items():
            live.worker(name, slots, "-E")
        live.until_state(State.ACTIVE, *SLOTS)
        yield live


@pytest.fixture(scope="module")
def shop(live: Live) -> Iterator[Any]:
    with shop_app(live) as module:
        yield module


def idle(live: Live) -> bool:
    """Nothing is held or waits anywhere, as the broker and the last heartbeats say."""
    snapshot = live.snapshot()
    return not snapshot.shared_depth and not any(
        i.inflight or i.queued or i.load.running for i in snapshot.instances
    )


def test_heartbeats_say_everything_that_can_be_known(live: Live) -> None:
    for instance in live.snapshot().instances:
        load = instance.load
        assert load.slots == SLOTS[instance.id]
        assert load.consuming is True
        assert load.cores
        assert load.memory_total
        assert load.memory_used
        assert load.latency_ms is not None
        assert load.load_avg is not None
        assert (load.running, load.queued, load.waiting) == (0, 0, 0)
        assert instance.profile is not None
        assert "shop.nap" in instance.profile.tasks
        assert instance.profile.queues == {"celery"}
        assert dict(instance.profile.versions)["celery"]
        assert instance.connections


def test_nobody_waits_while_a_slot_is_free(live: Live, shop: Any) -> None:
    """20 tasks of 1 s on 6 idle slots: four waves, and no slot idles while a task waits.

    The measure is the task itself: behind another one it would wait for a whole length.
    """
    live.until(lambda: idle(live), "an idle fleet")
    results = [shop.nap.delay(LENGTH_S) for _ in range(20)]
    spans = sorted(tuple(r.get(timeout=PATIENCE_S)) for r in results)
    slots = sum(SLOTS.values())
    for n, (start, _) in enumerate(spans[slots:], slots):
        # The slot that this task could have had is the one that became free as n - 5th.
        freed = sorted(end for _, end in spans)[n - slots]
        assert start - freed < LENGTH_S / 2, f"task {n} waited {start - freed:.2f} s"
    first = spans[0][0]
    assert all(start - first < LENGTH_S / 2 for start, _ in spans[:slots]), "six at once"


def test_every_way_to_submit_is_placed_and_works(live: Live, shop: Any) -> None:
    live.until(lambda: idle(live), "an idle fleet")
    assert shop.add.delay(1, 2).get(timeout=PATIENCE_S) == 3
    assert shop.add.apply_async((2, 3)).get(timeout=PATIENCE_S) == 5
    assert shop.app.send_task("shop.add", (3, 4)).get(timeout=PATIENCE_S) == 7
    assert chain(shop.add.s(1, 1), shop.add.s(5))().get(timeout=PATIENCE_S) == 7
    assert group(shop.add.s(n, n) for n in range(3))().get(timeout=PATIENCE_S) == [0, 2, 4]
    summed = chord(shop.add.s(n, n) for n in range(10))(shop.total.s())
    assert summed.get(timeout=PATIENCE_S) == 90
    assert shop.flaky.delay(2).get(timeout=PATIENCE_S) == 2


def test_an_explicit_queue_is_respected(live: Live, shop: Any) -> None:
    waiting = shop.video.delay()
    assert live.store.client.llen("video") == 1
    video = live.worker("video@t", 1, "-Q", "video")
    assert waiting.get(timeout=PATIENCE_S) == "seen"
    live.until_state(State.ACTIVE, "video@t")
    explained = {c.instance: c.why_not for c in shop.fleet.explain("shop.nap").candidates}
    assert explained["video@t"] == "does not consume celery"
    video.signal(15)
    assert video.wait() == 0


def test_failures_and_successes_are_counted(live: Live, shop: Any) -> None:
    live.until(lambda: idle(live), "an idle fleet")

    def counts() -> tuple[int, int]:
        seen = live.snapshot().instances
        return sum(i.succeeded for i in seen), sum(i.failed for i in seen)

    live.until(lambda: counts()[0] > 0, "counts of the tests before")
    before = counts()
    for _ in range(4):
        shop.fail.delay().get(timeout=PATIENCE_S, propagate=False)
    for n in range(3):
        shop.add.delay(n, n).get(timeout=PATIENCE_S)
    after = (before[0] + 3, before[1] + 4)
    live.until(lambda: counts() == after, f"counts {after}, from {before}")


def test_flower_lists_instances_and_finished_work(live: Live, shop: Any) -> None:
    port = free_port()
    live.start("flower", "celery", "-A", APP, "flower", f"--port={port}", "--address=127.0.0.1")

    def get(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return {}

    live.until(lambda: set(SLOTS) <= set(get("/api/workers")), "Flower to list workers")
    done = [shop.add.delay(n, 1).id for n in range(6)]

    def finished() -> bool:
        tasks = get("/api/tasks")
        return all(tasks.get(id_, {}).get("state") == "SUCCESS" for id_ in done)

    live.until(finished, "Flower to list the finished tasks")


def test_status_fits_80_columns_and_speaks_json(live: Live) -> None:
    text = live.nxs("status")
    assert text.returncode == 0, text.stderr
    table = text.stdout.splitlines()
    assert max(len(line) for line in table) <= 80, text.stdout
    for name, slots in SLOTS.items():
        row = next(line for line in table if line.startswith(name))
        assert "ACTIVE" in row
        assert f"/{slots} " in row
    told = json.loads(live.nxs("status", "--json").stdout)
    rows = {r["instance"]: r for r in told["instances"]}
    assert set(SLOTS) <= set(rows)
    assert set(rows["w1@t"]["terms"]) == {"cpu", "memory", "queue", "latency", "reliability"}
    assert told["control_tick_s"] is not None
    assert told["beat_leader"]


def test_the_commands_work_below_celery_too(live: Live) -> None:
    told = live.command("celery", "-A", APP, "nxs", "status", "--json")
    assert told.returncode == 0, told.stderr
    assert {r["instance"] for r in json.loads(told.stdout)["instances"]} >= set(SLOTS)


def test_story_of_a_task_tells_the_grounds_of_its_placement(live: Live, shop: Any) -> None:
    live.until(lambda: idle(live), "an idle fleet")
    result = shop.add.delay(1, 1)
    result.get(timeout=PATIENCE_S)

    def recorded() -> bool:
        return bool(shop.fleet.runtime.history().placements(task_id=result.id))

    live.until(recorded, "the placement in the history")
    told = json.loads(live.nxs("story", result.id, "--json").stdout)
    assert told["result_state"] == "SUCCESS"
    placement = told["placements"][0]
    assert placement["instance"] in SLOTS
    chosen = [c for c in placement["candidates"] if not c["why_not"]]
    assert [c["instance"] for c in chosen] == [placement["instance"]]
    text = live.nxs("story", result.id).stdout
    assert "← chosen" in text
    assert "highest score" in text


def test_story_of_nobody_says_so_and_fails(live: Live) -> None:
    told = live.nxs("story", "no-such-task")
    assert told.returncode == 1
    assert "nothing is known of it" in told.stdout


def test_settings_say_who_set_what(live: Live) -> None:
    told = json.loads(live.nxs("settings", "--json").stdout)
    own = {row["name"]: row for row in told["nxs"]}
    assert own["placement_sample"]["set_by"] == "NXS_PLACEMENT_SAMPLE"
    assert own["threshold"]["set_by"] == "default"
    celery = {row["name"]: row for row in told["celery"]}
    assert celery["task_acks_late"]["value"] == "True"
    assert celery["task_acks_late"]["set_by"] == "NXS"


def test_control_jobs_run_on_time_while_all_slots_are_busy(live: Live, shop: Any) -> None:
    """A minute with every slot of every instance taken: user work cannot starve control work."""
    live.until(lambda: idle(live), "an idle fleet")
    history = shop.fleet.runtime.history()
    begun = shop.fleet.runtime.clock.now()
    naps = [shop.nap.delay(60.0) for _ in range(sum(SLOTS.values()))]

    def all_busy() -> bool:
        held = {i.id: i.inflight for i in live.snapshot().instances if i.id in SLOTS}
        return held == SLOTS

    live.until(all_busy, "every slot taken")
    [held] = json.loads(live.nxs("story", naps[0].id, "--json").stdout)["held"]
    assert held["instance"] in SLOTS
    assert held["task"] == "shop.nap"
    ends = [nap.get(timeout=120)[1] for nap in naps]
    ran: Counter[str] = Counter()
    worst = 0.0
    live.until(lambda: bool(history.ticks(since=max(ends))), "the ticks in the history")
    for tick in history.ticks(since=begun):
        if tick.at <= min(ends):
            ran[tick.job] += 1
            worst = max(worst, tick.lateness_s)
    period = shop.fleet.settings.lifecycle_period
    expected = int((min(ends) - begun) / period)
    assert ran["lifecycle"] >= expected - 1, ran
    assert ran["record"] >= expected - 1, ran
    assert worst < period, f"{worst:.2f} s late"
