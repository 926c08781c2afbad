"""The gate: what Celery cannot run goes into quarantine byte for byte, and the rest to Celery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nxs_tasks.clock import SYSTEM, iso
from nxs_tasks.model.instance import Profile
from nxs_tasks.model.shelf import DELAYED, PARKED, PAUSED, QUARANTINE
from nxs_tasks.store import connect
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.transport.tenure import Claimed
from nxs_tasks.worker.gate import Gate
from nxs_tasks.worker.intents import WorkerIntents
from tests.conftest import Server, add_instance
from tests.integration.broken_messages import BROKEN, EMBED, ODD, message, of_protocol_1, raw
from tests.integration.claiming import OWN, Taker

PROFILE = Profile(tasks=frozenset({"shop.add"}), queues=frozenset({"celery"}))
SHELVES = (DELAYED, PARKED, PAUSED, QUARANTINE)


def an_app(*accept: str, zone: str = "UTC") -> Any:
    app = Celery("shop", set_as_current=False)
    app.conf.update(accept_content=list(accept or ("json",)), timezone=zone)

    @app.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    app.finalize()
    return app


def gated(url: str, app: Any) -> Taker:
    taker = Taker(url)
    taker.tenure.gate = Gate(app, taker.tenure, WorkerIntents(taker.store), PROFILE)
    return taker


@pytest.fixture
def taker(url: str) -> Iterator[Taker]:
    taker = gated(url, an_app())
    yield taker
    taker.close()


def on_shelves(taker: Taker) -> dict[str, list[Any]]:
    shelves = Shelves(taker.store)
    found = {shelf: list(shelves.entries(shelf)) for shelf in SHELVES}
    return {shelf: entries for shelf, entries in found.items() if entries}


def judged(taker: Taker) -> bool:
    """Nothing waits, and what was taken is with Celery or on a shelf."""
    if taker.waiting() or taker.waiting(OWN):
        return False
    aside = sum(len(entries) for entries in on_shelves(taker).values())
    return len(taker.got) + aside > 0 and len(taker.held()) == len(taker.got)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_put_aside_as_it_is(taker: Taker, name: str) -> None:
    sent, reason = BROKEN[name]
    taker.store.client.lpush("celery", sent)
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert (shelf, entry.reason) == (QUARANTINE, reason)
    assert entry.message.encode("utf-8", "surrogateescape") == sent
    assert entry.list == "celery"
    assert (taker.got, taker.held()) == ([], {})


def test_all_of_it_in_an_own_queue_is_put_aside_too(taker: Taker) -> None:
    taker.store.client.lpush(OWN, *(sent for sent, _ in BROKEN.values()))
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, entries)] = on_shelves(taker).items()
    assert (shelf, len(entries), taker.got) == (QUARANTINE, len(BROKEN), [])
    assert {entry.list for entry in entries} == {"celery"}, "where it would go back to"
    kept = sorted(entry.message.encode("utf-8", "surrogateescape") for entry in entries)
    assert kept == sorted(sent for sent, _ in BROKEN.values())


@pytest.mark.parametrize("name", ODD)
def test_what_is_only_odd_goes_to_celery(taker: Taker, name: str) -> None:
    taker.store.client.lpush("celery", ODD[name])
    taker.until(lambda: judged(taker), "a judgement")
    assert on_shelves(taker) == {}
    [got] = taker.got
    fields = got.headers if "task" in got.headers else got.payload
    assert (fields["id"], fields["task"]) == (name, "shop.add")
    assert bool(fields.get("eta")) == (name in ("late", "older with an eta")), "the task sees it"


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_what_is_early_waits_on_the_shelf(url: str, zone: str, older: bool) -> None:
    taker = gated(url, an_app(zone=zone))
    due = float(int(SYSTEM.now()) + 3600)
    eta = iso(due).replace("Z", "+00:00")
    sent = of_protocol_1("1", eta=eta, utc=True) if older else raw("1", {"eta": eta})
    taker.store.client.lpush(OWN, sent)
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert (shelf, entry.at, entry.list) == (DELAYED, due, "celery")
    back = json.loads(entry.message)
    assert back["properties"]["delivery_info"]["routing_key"] == "celery"
    assert back["body"] == json.loads(sent)["body"]
    assert taker.got == []
    taker.close()


def test_a_time_without_a_zone_is_utc(url: str) -> None:
    """As Celery reads it, whatever the zone of the app."""
    taker = gated(url, an_app(zone="Asia/Tokyo"))
    taker.store.client.lpush("celery", raw("1", {"eta": "2999-01-01T09:00:00"}))
    taker.until(lambda: judged(taker), "a judgement")
    [entry] = on_shelves(taker)[DELAYED]
    assert iso(entry.at) == "2999-01-01T09:00:00Z"
    taker.close()


@pytest.mark.parametrize("eta", ["0001-01-01T00:00:00", "9999-12-31T23:59:59"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_ends_of_time_are_times(url: str, zone: str, eta: str) -> None:
    """There are zones in which they are not; then it is broken, and nothing else happens."""
    taker = gated(url, an_app(zone=zone))
    taker.store.client.lpush("celery", raw("1", {"eta": eta}), raw("2"))
    taker.until(lambda: judged(taker), "a judgement")
    assert "2" in taker.ids()
    assert len(taker.got) + sum(map(len, on_shelves(taker).values())) == 2
    taker.close()


def test_a_priority_is_kept_on_the_way_to_a_shelf_and_back(taker: Taker) -> None:
    sent = raw("1", {"eta": "2999-01-01T00:00:00+00:00"}, {"priority": 6})
    taker.store.client.lpush(taker.store.wire.list_of("celery", 6), sent)
    taker.until(lambda: judged(taker), "a judgement")
    [entry] = on_shelves(taker)[DELAYED]
    assert entry.list == taker.store.wire.list_of("celery", 6)


@pytest.mark.parametrize(
    ("fresh", "taken", "passes"),
    [(True, False, True), (False, False, True), (False, True, False)],
)
def test_what_was_given_to_others_meanwhile_is_not_started(
    taker: Taker, fresh: bool, taken: bool, passes: bool
) -> None:
    """The process was frozen between the claim and the start, and given up."""
    app, gate = an_app("json"), taker.tenure.gate
    asked: list[int] = []

    def is_fresh(epoch: int) -> bool:
        asked.append(epoch)
        return fresh

    late = Gate(app, taker.tenure, WorkerIntents(taker.store), PROFILE, is_fresh)

    def judge(claimed: Claimed) -> bool:
        if taken:
            taker.tenure.inflight.give_back("w1@t", taker.tenure.epoch, lambda task, queue: "mail")
        taker.tenure.gate = gate
        return late(claimed)

    taker.tenure.gate = judge
    taker.store.client.lpush("celery", raw("1"))
    taker.until(lambda: bool(asked), "a judgement")
    assert (taker.ids() == ["1"]) is passes
    assert taker.waiting("mail") == int(taken)
    assert asked == [taker.tenure.epoch]


#: Tasks of an app that some other test has loaded belong to all apps of this process.
STRANGE = "known.elsewhere"


def test_what_is_paused_waits_on_the_shelf(taker: Taker) -> None:
    Intents(taker.store).pause("task", "shop.add", "ann@host")
    taker.store.client.lpush("celery", raw("a"))
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert (shelf, entry.task_id, taker.held()) == (PAUSED, "a", {})


def test_what_is_resumed_in_the_moment_of_its_judgement_runs(url: str) -> None:
    """It must not be put aside: whoever resumed the task has looked at the shelf already."""

    taker = gated(url, an_app())

    class Late(WorkerIntents):
        def is_paused(self, task: str) -> bool:
            paused = super().is_paused(task)
            Intents(taker.store).resume("task", task)
            return paused

    taker.tenure.gate = Gate(an_app(), taker.tenure, Late(taker.store), PROFILE)
    Intents(taker.store).pause("task", "shop.add", "ann@host")
    taker.store.client.lpush("celery", raw("a"))
    assert taker.until_got(1) == ["a"]
    assert on_shelves(taker) == {}
    taker.close()


def test_of_a_cancellation_that_is_taken_back_celery_remembers_nothing(taker: Taker) -> None:
    intents = Intents(taker.store)
    intents.cancel(["a"], "ann@host", 60.0)
    taker.store.client.lpush("celery", raw("a"))
    taker.until_got(1)
    assert "a" in state.revoked
    taker.store.client.zrem(taker.store.keys.cancelled(), "a")
    taker.store.client.lpush("celery", raw("a"))
    taker.until_got(2)
    assert "a" not in state.revoked


def test_what_is_paused_is_known_by_its_name_in_the_older_protocol(taker: Taker) -> None:
    Intents(taker.store).pause("task", "shop.add", "ann@host")
    taker.store.client.lpush("celery", of_protocol_1("a"))
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert (shelf, entry.task_id, entry.task) == (PAUSED, "a", "shop.add")


def test_what_is_put_into_quarantine_lets_go_of_its_unique_key(taker: Taker) -> None:
    lock = taker.store.keys.unique("order 7")
    taker.store.client.set(lock, "a")
    broken = message("a", headers={"nxs_unique": "order 7", "eta": "soon"})
    taker.store.client.lpush("celery", json.dumps(broken))
    taker.until(lambda: judged(taker), "a judgement")
    assert list(on_shelves(taker)) == [QUARANTINE]
    assert not taker.store.client.exists(lock)


def test_an_unknown_task_goes_to_the_queue_of_one_who_knows_it(taker: Taker) -> None:
    add_instance(taker.store, "w2@t", tasks=(STRANGE,))
    taker.store.client.lpush("celery", raw("1", {"task": STRANGE}))
    taker.until(lambda: taker.waiting("nxs.default/w2@t") == 1, "it in the queue of the other")
    [sent] = taker.store.client.lrange("nxs.default/w2@t", 0, -1)
    assert json.loads(sent)["properties"]["delivery_info"]["routing_key"] == "nxs.default/w2@t"
    assert (taker.got, taker.held(), on_shelves(taker)) == ([], {}, {})


def test_a_task_that_nobody_knows_is_parked(taker: Taker) -> None:
    taker.store.client.lpush(OWN, raw("1", {"task": STRANGE}))
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert (shelf, entry.task, entry.list) == (PARKED, STRANGE, "celery")
    assert entry.reason == "no instance knows it"


@pytest.mark.parametrize(
    ("accept", "sent"),
    [
        ("yaml", {"content-type": "application/x-yaml"}),
        ("pickle", {"content-type": "application/x-python-serialize"}),
    ],
)
def test_a_serializer_that_is_accepted_may_still_fail(
    url: str, accept: str, sent: dict[str, Any]
) -> None:
    """Anything may be raised by what it reads."""
    taker = gated(url, an_app("json", accept))
    taker.store.client.lpush("celery", raw("1", parts="{[ no such thing", **sent))
    taker.until(lambda: judged(taker), "a judgement")
    [(shelf, [entry])] = on_shelves(taker).items()
    assert shelf == QUARANTINE
    assert entry.reason.startswith(("its body cannot be read", "its body is not"))
    taker.close()


# fuzzed

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    *((part, name) for part in ("headers", "properties") for name in message("1")[part]),
    *(("headers", n) for n in ("nxs", "nxs_lost", "nxs_moved", "nxs_unique", "compression")),
    ("headers", "headers"),
    *(("properties", name) for name in ("expiration", "message_id")),
    *((name, None) for name in message("1")),
    *(("embed", name) for name in EMBED),
    ("arguments", None),
    ("keywords", None),
]


def changed(place: tuple[str, str | None], value: Any) -> str:
    part, name = place
    embed = {**EMBED, **({name: value} if part == "embed" and name else {})}
    args = value if part == "arguments" else [1, 2]
    whole = message("1", parts=[args, value if part == "keywords" else {}, embed])
    if name is not None and part in whole:
        whole[part][name] = value
    elif part in whole:
        whole[part] = value
    return json.dumps(whole)


@pytest.fixture(scope="module")
def fuzzed(server: Server) -> Iterator[Taker]:
    with connect(server.url) as client:
        client.flushdb()
    taker = gated(server.url, an_app())
    yield taker
    taker.close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(changed, st.sampled_from(PLACES), json_values).map(str.encode)
    | st.binary(max_size=40)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_is_in_exactly_one_place(fuzzed: Taker, sent: bytes) -> None:
    """And the worker goes on: the channel stays what it was."""
    fuzzed.until_armed()
    before = fuzzed.connection_id()
    fuzzed.store.client.lpush("celery", sent)
    fuzzed.until(lambda: judged(fuzzed), "a judgement")
    places = [*fuzzed.got, *(e for entries in on_shelves(fuzzed).values() for e in entries)]
    assert len(places) == 1
    for got in fuzzed.got:
        got.ack()
    fuzzed.got.clear()
    for shelf in SHELVES:
        fuzzed.store.client.delete(
            fuzzed.store.keys.shelf(shelf), fuzzed.store.keys.shelf_index(shelf)
        )
    assert fuzzed.held() == {}
    assert fuzzed.connection_id() == before
