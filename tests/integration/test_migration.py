"""Moving waiting tasks from line to line: the same tests on fakeredis and on the real server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.control.effects import apply
from nxs_tasks.errors import Stale
from nxs_tasks.model.decision import Migrate
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.rebalance import rebalance
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore, migration
from nxs_tasks.store.message import read
from nxs_tasks.store.migration import Moved, migrate
from tests.conftest import add_instance, new_store, set_back
from tests.integration.live import ROOT
from tests.integration.messages import GARBAGE, OWN, contents, message, put, task_ids
from tests.unit.builders import examples

TO = OWN.replace("w1", "w2")
SETTINGS = Settings()
KNOWN = ("shop.pay", "shop.mail")


def placed(number: float, queue: str = OWN, **headers: Any) -> str:
    """A message that was placed at that time; its id is the time."""
    about = {"to": queue.rpartition("/")[2], "score": 0.9, "why": "best", "at": number}
    return message(f"t{number:g}", queue, nxs=about, **headers)


def ids(*numbers: float) -> list[str]:
    return [f"t{n:g}" for n in numbers]


def a_fleet(store: FleetStore) -> None:
    for name in ("w1", "w2"):
        add_instance(store, name, tasks=KNOWN)


def a_move(tasks: int = 100, **values: Any) -> Migrate:
    """From w1 to w2, each in its first epoch."""
    known: dict[str, Any] = {
        "source": "w1",
        "source_epoch": 1,
        "source_state": State.ACTIVE,
        "target": "w2",
        "target_epoch": 1,
        "target_state": State.ACTIVE,
        "tasks": tasks,
        "after": 0,
        "knows": frozenset(KNOWN),
        "reason": "by hand",
    }
    return Migrate(**{**known, **values})


def the(store: FleetStore, name: str) -> Instance:
    found = store.snapshot().get(name)
    assert found is not None
    return found


def do(store: FleetStore, decision: Migrate) -> Moved:
    return migrate(store, decision, SETTINGS)


class TestOrder:
    def test_the_oldest_move_and_keep_their_order(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in range(1, 7)))
        assert do(store, a_move(3)) == Moved(moved=3, stayed={})
        assert task_ids(store, TO) == ids(1, 2, 3)
        assert task_ids(store, OWN) == ids(4, 5, 6)

    def test_what_is_about_to_start_stays(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in range(1, 7)))
        do(store, a_move(3, after=2))
        assert task_ids(store, OWN) == ids(1, 2, 6)
        assert task_ids(store, TO) == ids(3, 4, 5)

    def test_older_ones_are_taken_before_what_waits(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in (1, 2, 3)))
        put(store, TO, *(placed(n, TO) for n in (7, 8)))
        do(store, a_move())
        assert task_ids(store, TO) == ids(1, 2, 3, 7, 8)

    def test_newer_ones_are_taken_after_it(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in (7, 8)))
        put(store, TO, *(placed(n, TO) for n in (1, 2)))
        do(store, a_move())
        assert task_ids(store, TO) == ids(1, 2, 7, 8)

    def test_and_others_in_between(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in (2, 4, 6)))
        put(store, TO, *(placed(n, TO) for n in (1, 3, 5, 7)))
        do(store, a_move())
        assert task_ids(store, TO) == ids(1, 2, 3, 4, 5, 6, 7)

    def test_priorities_are_kept_the_most_urgent_first(self, store: FleetStore) -> None:
        a_fleet(store)
        for priority in (9, 3, 0):
            put(store, OWN, *(placed(10 * priority + n) for n in (1, 2, 3)), priority=priority)
        do(store, a_move(5, after=2))
        keys = store.wire.queue_keys(TO)
        assert [store.client.llen(key) for key in keys] == [1, 3, 0, 1]
        assert task_ids(store, TO) == ids(3, 31, 32, 33, 91)

    def test_more_than_one_part(self, store: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(migration, "PART", 7)
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in range(50)))
        put(store, TO, *(placed(n + 0.5, TO) for n in range(0, 50, 5)))
        assert do(store, a_move(40)).moved == 40
        found = [float(i[1:]) for i in task_ids(store, TO)]
        assert found == sorted(found)
        assert len(found) == 50
        assert task_ids(store, OWN) == ids(*range(40, 50))

    def test_what_cannot_be_put_in_order_stays(
        self, store: FleetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migration, "MERGED", 4)
        monkeypatch.setattr(migration, "PART", 4)
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in (3, 30)))
        put(store, TO, *(placed(n, TO) for n in (1, 2, 4, 5, 6, 100)))
        done = do(store, a_move())
        assert (done.moved, done.stayed) == (1, {migration.TARGET_OLDER: 1})
        assert task_ids(store, TO) == ids(1, 2, 3, 4, 5, 6, 100)
        assert task_ids(store, OWN) == ids(30)


class TestMessages:
    def test_a_moved_message_is_addressed_to_its_new_queue(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, placed(1, lang="de"))
        do(store, a_move())
        [raw] = contents(store, TO)
        moved, before = json.loads(raw), json.loads(placed(1, lang="de"))
        assert moved["properties"]["delivery_info"] == {"exchange": "", "routing_key": TO}
        mark = moved["headers"].pop("nxs_moved")
        assert mark["from"] == "w1"
        assert abs(mark["at"] - store.now()) < 60
        assert moved["headers"] == before["headers"]
        assert moved["body"] == before["body"]

    def test_pinned_ones_stay_where_they_are(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, message("p1"), placed(1), message("p2"), placed(2), placed(3))
        done = do(store, a_move(2))
        assert done == Moved(moved=2, stayed={migration.PINNED: 2})
        assert str(done) == "2 task(s) moved (left: 2 named this queue themselves)"
        assert task_ids(store, OWN) == ["p1", "p2", "t3"]

    def test_what_the_target_does_not_know_stays(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, placed(1, task="shop.train"), placed(2))
        assert do(store, a_move()).stayed == {migration.UNKNOWN: 1}
        assert task_ids(store, OWN) == ids(1)

    def test_what_was_moved_lately_stays(self, store: FleetStore) -> None:
        a_fleet(store)
        now = store.now()
        put(store, OWN, placed(1, nxs_moved={"from": "w2", "at": now - 299}))
        put(store, OWN, placed(2, nxs_moved={"from": "w2", "at": now - 301}))
        put(store, OWN, placed(3, nxs_moved={"at": "nonsense"}), placed(4, nxs_moved=7))
        assert do(store, a_move()).stayed == {migration.MOVED_LATELY: 1}
        assert task_ids(store, OWN) == ids(1)

    def test_what_waits_for_a_warm_cache_stays_until_it_is_too_old(self, store: FleetStore) -> None:
        a_fleet(store)
        now = store.now()
        old, new = now - 61, now - 30
        for number, at, key in ((1, old, "a"), (2, new, "a"), (3, new, "b"), (4, new, "")):
            about = {"to": "w1", "score": 0.9, "why": "best", "at": at, "key": key}
            put(store, OWN, message(f"t{number}", OWN, nxs=about))
        done = do(store, a_move(warm=("b",), cold_after=60.0))
        assert done.stayed == {migration.WARM_HERE: 1}
        assert task_ids(store, OWN) == ids(2)

    def test_garbage_stays_byte_for_byte(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, *GARBAGE, placed(1), *GARBAGE)
        put(store, TO, *GARBAGE)
        assert do(store, a_move()).moved == 1
        assert contents(store, OWN) == [*GARBAGE, *GARBAGE]
        assert [raw for raw in contents(store, TO) if b"nxs_moved" not in raw] == GARBAGE

    def test_two_messages_may_be_the_same(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, placed(2), placed(2), placed(2))
        put(store, TO, placed(1, TO), placed(1, TO), placed(3, TO), placed(3, TO))
        assert do(store, a_move()).moved == 3
        assert task_ids(store, TO) == ids(1, 1, 2, 2, 2, 3, 3)
        assert task_ids(store, OWN) == []

    def test_of_two_that_are_the_same_one_is_taken_meanwhile(
        self, store: FleetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_fleet(store)
        put(store, OWN, placed(1), placed(1), placed(2))
        call = store.call

        def late(script: str, keys: list[str], args: Iterable[Any]) -> Any:
            store.client.rpop(OWN)
            return call(script, keys, args)

        monkeypatch.setattr(store, "call", late)
        assert do(store, a_move()) == Moved(moved=2, stayed={migration.TAKEN: 1})
        assert task_ids(store, TO) == ids(1, 2)
        assert task_ids(store, OWN) == []


class TestPreconditions:
    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"source_epoch": 2}, "the source is now ACTIVE:1"),
            ({"source_state": State.DEGRADED}, "the source is now ACTIVE:1"),
            ({"target_epoch": 2}, "the target is now ACTIVE:1"),
            ({"target_state": State.LEAVING}, "the target is now ACTIVE:1"),
            ({"target": "w3"}, "the target is now none:0"),
        ],
    )
    def test_a_fleet_that_changed(self, store: FleetStore, other: dict[str, Any], why: str) -> None:
        a_fleet(store)
        put(store, OWN, placed(1))
        outcome = apply(a_move(**other), store, SETTINGS)
        assert (outcome.applied, outcome.detail) == (False, why)
        assert task_ids(store, OWN) == ids(1)
        assert the(store, "w1").migrated_at is None

    def test_both_ends_rest(self, store: FleetStore) -> None:
        a_fleet(store)
        add_instance(store, "w3", tasks=KNOWN)
        put(store, OWN, *(placed(n) for n in (1, 2, 3)))
        assert apply(a_move(1), store, SETTINGS).detail == "1 task(s) moved"
        now = store.now()
        a, b = the(store, "w1"), the(store, "w2")
        assert a.migrated_at is not None
        assert now - a.migrated_at < 60
        assert (b.migrated_at, b.received_at, a.received_at) == (a.migrated_at, a.migrated_at, None)
        outcome = apply(a_move(1, target="w3"), store, SETTINGS)
        assert outcome.detail == "the source took part in a migration 0 s ago"
        outcome = apply(a_move(1, source="w3", target="w2"), store, SETTINGS)
        assert not outcome.applied, "it has nothing"
        put(store, TO.replace("w2", "w3"), placed(9))
        outcome = apply(a_move(1, source="w3", target="w2"), store, SETTINGS)
        assert outcome.detail == "the target took part in a migration 0 s ago"
        for name in ("w1", "w3"):
            set_back(store, name, "migrated_at", SETTINGS.migrate_every)
        assert apply(a_move(1, target="w3"), store, SETTINGS).applied

    def test_nothing_that_may_move_is_a_refusal_with_reasons(self, store: FleetStore) -> None:
        a_fleet(store)
        put(store, OWN, message("p1"), placed(1, task="shop.train"))
        with pytest.raises(Stale, match="1 named this queue themselves, 1 not known to the target"):
            do(store, a_move())
        assert the(store, "w1").migrated_at is None, "it may take part in another one at once"

    def test_an_instance_that_leaves_in_between_ends_it(
        self, store: FleetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migration, "PART", 2)
        a_fleet(store)
        put(store, OWN, *(placed(n) for n in range(6)))
        call, calls = store.call, Counter[str]()

        def leaving(script: str, keys: list[str], args: Iterable[Any]) -> Any:
            calls[script] += 1
            if calls["migrate"] == 2:
                store.client.hset(store.keys.instance("w2"), "state", "LEAVING")
            return call(script, keys, args)

        monkeypatch.setattr(store, "call", leaving)
        done = do(store, a_move())
        assert (done.moved, done.cut_short) == (2, "the target is now LEAVING:1")
        assert task_ids(store, TO) == ids(0, 1)
        assert task_ids(store, OWN) == ids(2, 3, 4, 5)


@given(
    at_source=st.lists(st.integers(0, 40), unique=True, max_size=25),
    at_target=st.lists(st.integers(0, 40), unique=True, max_size=25),
    tasks=st.integers(1, 30),
    after=st.integers(0, 3),
    meanwhile=st.lists(st.sampled_from(["take", "take there", "place", "place there", "front"])),
    part=st.integers(1, 12),
)
@examples(60)
def test_order_and_number_are_kept_whatever_others_do(
    server: Any,
    at_source: list[int],
    at_target: list[int],
    tasks: int,
    after: int,
    meanwhile: list[str],
    part: int,
) -> None:
    """Between any two calls of the server others take and put messages."""
    store = new_store(server.url)
    store.client.flushdb()
    a_fleet(store)
    put(store, OWN, *(placed(n) for n in sorted(at_source)))
    put(store, TO, *(placed(n + 0.5, TO) for n in sorted(at_target)))
    sent = ids(*at_source, *(n + 0.5 for n in at_target))
    taken: list[str] = []
    newest = iter(range(1000, 2000))
    oldest = iter(range(-1, -1000, -1))
    steps = iter(meanwhile)
    call = store.call

    def interrupted(script: str, keys: list[str], args: Iterable[Any]) -> Any:
        match next(steps, ""):
            case "take" | "take there" as which:
                raw = store.client.rpop(TO if "there" in which else OWN)
                taken.extend([read(str(raw)).task_id] if raw else [])
            case "place" | "place there" as which:
                queue, n = TO if "there" in which else OWN, next(newest)
                put(store, queue, placed(n, queue))
                sent.append(f"t{n:g}")
            case "front":
                n = next(oldest)
                store.client.rpush(TO, placed(n, TO))
                sent.append(f"t{n:g}")
        return call(script, keys, args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "call", interrupted)
        patch.setattr(migration, "PART", part)
        patch.setattr(migration, "FEW", 2)
        try:
            done = do(store, a_move(tasks, after=after))
        except Stale:
            done = Moved(moved=0, stayed={})
    here, there = ([float(i[1:]) for i in task_ids(store, queue)] for queue in (OWN, TO))
    assert here == sorted(here)
    assert there == sorted(there)
    found = [*(f"t{n:g}" for n in (*here, *there)), *taken]
    assert sorted(found) == sorted(sent), "nothing lost, nothing twice"
    assert done.moved <= tasks


#: Migrations that are killed.
KILLS = int(os.environ.get("MIGRATION_KILLS", "25"))
WAITING = 3_000


def test_a_migration_that_is_killed_loses_and_doubles_nothing(url: str) -> None:
    store = new_store(url)
    a_fleet(store)
    put(store, OWN, *(placed(n) for n in range(WAITING)))
    command = [sys.executable, "-m", "tests.integration.mortal_movers", url, str(KILLS)]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    assert told.returncode == 0, told.stderr
    assert int(told.stdout.split()[0]) > 0, "some were killed when a part had been moved"
    here, there = ([int(i[1:]) for i in task_ids(store, queue)] for queue in (OWN, TO))
    assert sorted(here + there) == list(range(WAITING))
    assert here == sorted(here)
    assert there == sorted(there)


def test_a_plan_is_carried_out_and_the_next_one_is_nothing(store: FleetStore) -> None:
    a_fleet(store)
    put(store, OWN, *(placed(n) for n in range(40)))
    snapshot = store.snapshot()
    decisions = rebalance(snapshot, SETTINGS, snapshot.taken_at)
    [move] = [d for d in decisions if isinstance(d, Migrate)]
    assert (move.source, move.target, move.tasks, move.after) == ("w1", "w2", 20, 2)
    assert apply(move, store, SETTINGS).applied
    again = store.snapshot()
    left = rebalance(again, SETTINGS, again.taken_at)
    assert not [d for d in left if isinstance(d, Migrate)]
    assert task_ids(store, TO) == ids(*range(2, 22))


def test_a_shuffled_line_is_moved_in_the_order_it_has(store: FleetStore) -> None:
    """What was given back to the front, or placed by a clock that is wrong, keeps its place."""
    a_fleet(store)
    numbers = random.Random(4).sample(range(100), 30)
    put(store, OWN, *(placed(n) for n in numbers))
    do(store, a_move(30))
    assert task_ids(store, TO) == ids(*numbers)
