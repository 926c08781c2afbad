"""Real workers that are dead and look alive: frozen, or green and taking no work."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nxs_tasks.model.state import State
from nxs_tasks.worker.remedies import EXIT_ANEW
from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import PATIENCE_S, Live, live_fleet, shop_app

pytest_plugins = ["tests.integration.live_fixtures"]

NODE, DEAF_APP = "w1@t", "tests.integration.deaf_fleet"
#: Short, so that a test need not take minutes; in the order that the settings demand.
QUICK = {
    "NXS_HEARTBEAT_PERIOD": "0.5",
    "NXS_JOIN_PERIOD": "0.3",
    "NXS_LIFECYCLE_PERIOD": "0.5",
    "NXS_GONE_AFTER": "1.5",
    "NXS_SILENT_AFTER": "1.5",
    "NXS_ZOMBIE_AFTER": "2",
}


@pytest.fixture
def ledger(live: Live) -> Iterator[Ledger]:
    live.env |= {**QUICK, "NXS_EVICT_AFTER": "5"}
    with a_ledger(live) as ledger:
        live.control_plane()
        yield ledger


def test_a_frozen_worker_is_evicted_step_by_step_and_fenced_when_it_wakes(ledger: Ledger) -> None:
    live = ledger.live
    frozen = ledger.worker(NODE, 1)
    live.until_state(State.ACTIVE, NODE)
    task = ledger.tasks.until.delay("go")
    live.until(lambda: ledger.times() == {task.id: 1}, "it to run")
    ledger.worker("w2@t", 1)
    frozen.signal(signal.SIGSTOP)
    live.until_state(State.GONE, NODE)
    live.until(lambda: ledger.times() == {task.id: 2}, "it to run elsewhere")

    def told() -> str:
        return live.nxs("story", NODE).stdout

    live.until(lambda: "what it held" in told(), "the end of the story")
    # Whoever ends it, the story or the lifecycle job in the same moment, all is done.
    steps = ["ACTIVE → ZOMBIE", "asked to end", "of its process closed", "what it held"]
    places = [told().find(step) for step in steps]
    assert -1 not in places, told()
    assert places == sorted(places), told()
    frozen.signal(signal.SIGCONT)
    live.until_state(State.ACTIVE, NODE, "w2@t")
    assert live.instance(NODE).epoch == 2
    live.until(lambda: "was given to another instance meanwhile" in frozen.log, "it to notice")
    ledger.client.set("go", 1)
    live.until(task.ready, "its result")
    ledger.until_idle()
    assert ledger.times("end") == {task.id: 1}, "by the other alone"
    assert frozen.exit_code is None, "asked to end, it was heard again and lives"


def test_one_that_works_and_is_not_heard_ends_when_it_is_asked_to(live: Live) -> None:
    live.env |= {**QUICK, "NXS_EVICT_AFTER": "30", "NXS_BROKER_TIMEOUT": "1"}
    live.control_plane()
    worker = live.worker(NODE, 1, app=DEAF_APP)
    live.until_state(State.ACTIVE, NODE)
    with shop_app(live) as shop:
        shop.app.control.broadcast("mute", destination=[NODE])
    assert worker.wait() == EXIT_ANEW
    live.until_state(State.GONE, NODE)
    assert "asked to end" in live.nxs("story", NODE).stdout


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One worker, in good health."""
    with live_fleet(tmp_path_factory.mktemp("deaf")) as live:
        live.env |= {
            **QUICK,
            "NXS_EVICT_AFTER": "40",
            "NXS_HEAL_AFTER": "0.5,1,20,30,40",
        }
        live.control_plane()
        live.worker(NODE, 2, app=DEAF_APP)
        live.until_state(State.ACTIVE, NODE)
        yield live


@pytest.fixture
def shop(works: Live) -> Iterator[Any]:
    with shop_app(works) as module:
        works.until_state(State.ACTIVE, NODE)
        yield module


def healed(live: Live, shop: Any, remedy: str, seen_before: int) -> None:
    """Found, cured by that remedy, recorded, and at work again as the same process."""
    live.until(lambda: told_of(live, "takes work again") > seen_before, "its recovery")
    assert told_of(live, remedy) == 1
    assert shop.add.delay(1, 2).get(timeout=PATIENCE_S) == 3
    live.until_state(State.ACTIVE, NODE)
    assert live.instance(NODE).epoch == 1


def told_of(live: Live, what: str) -> int:
    return live.nxs("story", NODE).stdout.count(what)


def test_a_consumer_that_was_cancelled_behind_its_back(works: Live, shop: Any) -> None:
    before = told_of(works, "takes work again")
    for queue in ("celery", works.store.keys.own_queue(NODE)):
        shop.app.control.cancel_consumer(queue, destination=[NODE])
    healed(works, shop, "consumes again from the queues", before)


def test_a_claim_connection_that_is_watched_by_nobody(works: Live, shop: Any) -> None:
    """Open, and never read: kombu takes it for an answer that will be read in a moment.

    The control plane finds it too, and takes the worker for a ZOMBIE until it takes work again.
    """
    before = told_of(works, "takes work again")
    shop.app.control.broadcast("unwatch", destination=[NODE])
    works.until_state(State.ZOMBIE, NODE)
    healed(works, shop, "connects anew", before)
    assert told_of(works, "ZOMBIE → JOINING") == 1


def test_a_claim_connection_that_is_killed(works: Live, shop: Any) -> None:
    """Celery and kombu see that themselves: nothing is left to heal."""
    remedies: Callable[[], int] = lambda: told_of(works, "its consumer")  # noqa: E731
    before = remedies()
    killed = works.store.client.client_kill_filter
    for client in works.store.client.client_list():
        # Only who takes messages has notices turned on.
        if client["name"] == works.store.keys.client_name(NODE, 1) and "t" in client["flags"]:
            assert killed(_id=client["id"]) == 1
    assert [shop.add.delay(n, 1).get(timeout=PATIENCE_S) for n in range(9)] == list(range(1, 10))
    assert remedies() == before
