"""The gate and what tasks declare: what never runs here goes on, and used keys are noted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks.model.instance import Profile
from nxs_tasks.model.shelf import PARKED
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.worker.gate import Gate
from nxs_tasks.worker.intents import WorkerIntents
from tests.conftest import add_instance
from tests.integration.claiming import MakeTaker, Taker, a_message
from tests.integration.test_gate import an_app

pytest_plugins = ["tests.integration.claiming_fixtures"]

WHY = "has no tag 'gpu', which the task needs"


@pytest.fixture
def app() -> Iterator[Any]:
    app = an_app()
    yield app
    app.close()


def gated(taker: Taker, app: Any, profile: Profile, most_keys: int = 2) -> Taker:
    intents = WorkerIntents(taker.store)
    taker.tenure.gate = Gate(app, taker.tenure, intents, profile, most_keys=most_keys)
    return taker


def unable() -> Profile:
    queues = frozenset({"celery"})
    return Profile(tasks=frozenset(), queues=queues, unable={"shop.add": WHY})


def able() -> Profile:
    return Profile(tasks=frozenset({"shop.add"}), queues=frozenset({"celery"}))


def keyed(number: int, key: Any) -> str:
    return a_message(number, nxs={"to": None, "score": None, "why": "", "at": 1.0, "key": key})


def test_what_can_never_run_here_goes_to_one_that_can(taker: Taker, app: Any) -> None:
    gated(taker, app, unable())
    add_instance(taker.store, "w2@t", tasks=("shop.add",))
    taker.store.client.lpush("celery", a_message(1))
    taker.until(lambda: taker.waiting("nxs.default/w2@t") == 1, "it to be sent on")
    assert (taker.got, taker.held()) == ([], {})


def test_if_nobody_can_it_is_parked(taker: Taker, app: Any) -> None:
    gated(taker, app, unable())
    taker.store.client.lpush("celery", a_message(1))
    shelves = Shelves(taker.store)
    taker.until(lambda: shelves.count(PARKED) == 1, "it to be parked")
    [entry] = shelves.entries(PARKED)
    assert (entry.task, entry.task_id) == ("shop.add", "1")
    assert (taker.got, taker.held()) == ([], {})


def test_keys_of_what_begins_are_noted_the_newest_first(taker: Taker, app: Any) -> None:
    gated(taker, app, able())
    for number, key in enumerate(["b", "a", "c", "c"]):
        taker.store.client.lpush("celery", keyed(number, key))
    taker.store.client.lpush("celery", a_message(4), keyed(5, ["no text"]), keyed(6, "\ud800"))
    taker.until_got(7)
    assert list(taker.tenure.keys) == ["c", "a"]
    assert taker.tenure.wishes().warm == ('"c"', '"a"')


def test_the_key_of_what_does_not_begin_is_not(taker: Taker, app: Any) -> None:
    gated(taker, app, able())
    Intents(taker.store).pause("task", "shop.add", by="a test")
    taker.store.client.lpush("celery", keyed(1, "a"))
    taker.until(lambda: Shelves(taker.store).count("paused") == 1, "it to wait")
    assert list(taker.tenure.keys) == []


def test_a_worker_takes_what_is_warm_for_it_next(url: str, make_taker: MakeTaker, app: Any) -> None:
    taker = gated(make_taker(url), app, able())
    taker.tenure.longest_s = lambda: 1e12
    taker.store.client.lpush("celery", *(keyed(n, key) for n, key in enumerate("abab")))
    assert taker.until_got(4) == ["0", "2", "1", "3"]
