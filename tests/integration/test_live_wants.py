"""Real workers: what tasks declare is kept, and what waits for others is taken by who is idle.

The tasks are submitted by a process that has not their code: what they want is told by the workers.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from celery import Celery

from nxs_tasks.model.shelf import PARKED
from nxs_tasks.model.state import State
from nxs_tasks.store.shelves import Shelves
from tests.conftest import JSON
from tests.integration.live import PATIENCE_S, Live, shop_app

pytest_plugins = ["tests.integration.live_fixtures"]
APP = "tests.integration.wants_fleet"
Ran = tuple[str, float, float]


@pytest.fixture
def shop(live: Live) -> Iterator[Any]:
    live.control_plane()
    with shop_app(live) as module:
        yield module


def start(live: Live, *names: str, slots: int = 1, **env: str) -> None:
    """Workers with these settings, when they are ready for work."""
    before = dict(live.env)
    live.env.update({f"NXS_{key.upper()}": value for key, value in env.items()})
    for name in names:
        live.worker(name, slots, app=APP)
    live.env.clear()
    live.env.update(before)
    live.until_state(State.ACTIVE, *names)


def run(shop: Any, task: str, *args_list: tuple[Any, ...]) -> list[Ran]:
    """Submit and wait: where each ran, and from when to when."""
    return got(shop, shop.fleet.submit_many(task, list(args_list)).ids)


def put(live: Live, instance: str, *seconds: float, placed: bool = True) -> list[str]:
    """Tasks in the own queue of an instance: placed there, or named by their sender."""
    stock = Celery("stock", broker=live.server.url, set_as_current=False)
    stock.conf.update(JSON)
    header = {"nxs": {"to": instance, "score": 0.9, "why": "by hand", "at": 1.0}}
    headers, queue = header if placed else {}, live.store.keys.own_queue(instance)
    try:
        return [
            stock.send_task("wants.nothing", (s,), queue=queue, headers=headers).id for s in seconds
        ]
    finally:
        stock.close()


def got(shop: Any, ids: list[str]) -> list[Ran]:
    return [tuple(shop.app.AsyncResult(i).get(timeout=PATIENCE_S)) for i in ids]


def most_at_once(ran: list[Ran]) -> int:
    """The highest number that ran at one moment."""
    edges = sorted((at, step) for _, begin, end in ran for at, step in ((begin, 1), (end, -1)))
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


def test_a_task_runs_only_where_it_finds_what_it_needs(live: Live, shop: Any) -> None:
    start(live, "plain1@t", "plain2@t", slots=2)
    parked = shop.fleet.submit("wants.gpu", (0.0,)).id
    shelves = Shelves(live.store)
    live.until(lambda: shelves.count(PARKED) == 1, "parked: nobody has a gpu")
    start(live, "gpu@t", slots=2, tags="gpu,ssd")
    assert got(shop, [parked])[0][0] == "gpu@t"
    shop.fleet.submitter._reset()
    ran = run(shop, "wants.gpu", *[(0.05,)] * 12)
    assert Counter(where for where, _, _ in ran) == {"gpu@t": 12}


def test_what_stands_in_the_shared_queue_is_sent_on_to_who_can_run_it(
    live: Live, shop: Any
) -> None:
    start(live, "plain@t", slots=2)
    start(live, "gpu@t", slots=1, tags="gpu")
    results = [shop.app.send_task("wants.gpu", (0.01,), queue="celery") for _ in range(6)]
    assert {where for where, _, _ in got(shop, [r.id for r in results])} == {"gpu@t"}


@pytest.mark.parametrize(
    ("task", "settings", "most"),
    [("wants.slots", {}, 2), ("wants.memory", {"task_memory": "13"}, 2)],
)
def test_an_instance_runs_no_more_than_fits(
    live: Live, shop: Any, task: str, settings: dict[str, str], most: int
) -> None:
    start(live, "w1@t", slots=5, **settings)
    ran = run(shop, task, *[(0.2,)] * 8)
    assert most_at_once(ran) == most


def test_what_fits_not_now_comes_next(live: Live, shop: Any) -> None:
    start(live, "w1@t", slots=2)
    one = shop.fleet.submit("wants.nothing", (1.0,)).id
    live.until(lambda: live.instance("w1@t").inflight == 1, "it runs")
    wide = shop.fleet.submit("wants.slots", (0.1,)).id
    live.until(lambda: live.instance("w1@t").inflight == 2, "it is held until there is room")
    others = shop.fleet.submit_many("wants.nothing", [(0.01,)] * 3).ids
    first, second, *rest = got(shop, [one, wide, *others])
    assert second[1] >= first[2], "two slots were free only after the first"
    assert all(begin >= second[2] for _, begin, _ in rest), "none came before it"


def test_what_fits_not_goes_to_who_has_the_room(live: Live, shop: Any) -> None:
    start(live, "w1@t", slots=2, heartbeat_period="0.5", gone_after="5")
    long = shop.fleet.submit("wants.nothing", (600.0,)).id
    live.until(lambda: live.instance("w1@t").inflight == 1, "it runs")
    wide = shop.fleet.submit("wants.slots", (0.1,)).id
    live.until(lambda: live.instance("w1@t").load.kept != "", "it waits there for room")
    told = shop.fleet.why(wide).sentence
    assert "waits in w1@t" in told
    assert "until there is room for 2 slots" in told
    start(live, "w2@t", slots=2)
    assert got(shop, [wide])[0][0] == "w2@t"
    assert shop.fleet.cancel(long, terminate=True)


def test_what_never_fits_is_parked_with_its_reason(live: Live, shop: Any) -> None:
    start(live, "w1@t")
    shop.fleet.submit("wants.too_much", (0.0,))
    live.until(lambda: Shelves(live.store).count(PARKED) == 1, "parked")
    found = {c.why_not for c in shop.fleet.explain("wants.too_much").candidates}
    assert len(found) == 1
    assert "the task takes 900 GB" in found.pop()


def test_a_task_goes_where_its_model_is_warm(live: Live, shop: Any) -> None:
    start(live, "w1@t", "w2@t", slots=2, affinity_keys="1")
    where: dict[str, str] = {}
    for model in ("a", "b", "a", "b", "a", "b"):
        [(ran_on, _, _)] = run(shop, "wants.model", (model, 0.01))
        assert where.setdefault(model, ran_on) == ran_on
    live.until(lambda: live.instance(where["a"]).load.keys[:1] == ("model:a",), "told")


def test_who_is_idle_takes_what_waits_for_another(live: Live, shop: Any) -> None:
    start(live, "w1@t")
    blocked = shop.fleet.submit("wants.nothing", (20.0,)).id
    live.until(lambda: live.instance("w1@t").inflight == 1, "w1 works")
    waiting = put(live, "w1@t", *[0.05] * 20)
    [pinned] = put(live, "w1@t", 0.05, placed=False)
    start(live, "w2@t")
    ran = got(shop, waiting)
    assert {where for where, _, _ in ran} == {"w2@t"}
    assert all(earlier[1] <= later[1] for earlier, later in pairwise(ran)), "the oldest first"
    assert [where for where, _, _ in got(shop, [blocked, pinned])] == ["w1@t", "w1@t"]


def test_a_black_hole_takes_no_work_any_more(live: Live, shop: Any) -> None:
    start(live, "hole@t", "w1@t", "w2@t", slots=2)
    # So that it is known how they go elsewhere.
    for ids in (shop.fleet.submit_many("wants.fragile", [(0.05,)] * 4).ids for _ in range(3)):
        for id_ in ids:
            shop.app.AsyncResult(id_).get(timeout=PATIENCE_S, propagate=False)
    results = [
        shop.app.AsyncResult(id_)
        for id_ in shop.fleet.submit_many("wants.fragile", [(0.05,)] * 400).ids
    ]
    for result in results:
        result.get(timeout=PATIENCE_S, propagate=False)
    failed = sum(result.failed() for result in results)
    assert 0 < live.instance("hole@t").failed <= 20
    assert failed <= 20
    live.until_state(State.DEGRADED, "hole@t")
    assert "go well elsewhere" in live.instance("hole@t").ejected_why
    assert {i.state for i in live.snapshot().instances if i.id != "hole@t"} == {State.ACTIVE}


def test_a_thief_that_is_killed_loses_nothing(live: Live, shop: Any) -> None:
    start(live, "w1@t")
    blocked = shop.fleet.submit("wants.nothing", (15.0,)).id
    live.until(lambda: live.instance("w1@t").inflight == 1, "w1 works")
    waiting = put(live, "w1@t", *[0.3] * 30)
    thief = live.worker("w2@t", 2, app=APP)
    live.until_state(State.ACTIVE, "w2@t")
    live.until(lambda: (live.instance("w2@t").inflight or 0) > 0, "it holds some")
    thief.signal(signal.SIGKILL)
    live.until_state(State.GONE, "w2@t")
    assert len(got(shop, [blocked, *waiting])) == 31
    assert live.instance("w1@t").queued == 0
