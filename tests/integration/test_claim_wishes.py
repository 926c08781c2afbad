"""What a process would rather take: a warm key before an older task, and what waits for others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks.model.decision import Placement
from nxs_tasks.store import FleetStore
from nxs_tasks.store.claim import Wishes
from nxs_tasks.store.message import placed_header, read
from tests.integration.holding import NOTHING, TAKEN, Process, ids
from tests.integration.messages import OWN, SHARED, message, put, task_ids

#: So many of the oldest messages are looked at where one may be chosen, as claim.lua says.
LOOK = 16
#: The own queue of another instance.
THEIRS = OWN.replace("w1", "w2")
PATIENT = 3600.0


def placed(
    store: FleetStore,
    task_id: str,
    *,
    key: str = "",
    ago: float = 1.0,
    task: str = "shop.pay",
    to: str | None = None,
    **headers: Any,
) -> str:
    """A message that a submitter of the fleet has placed so many seconds ago."""
    placement = Placement(task=task, instance=to, score=0.8, reason='because "of it"', key=key)
    header = placed_header(placement, store.now() - ago)
    queue = SHARED if to is None else OWN.replace("w1", to)
    return message(task_id, queue, **{"task": task, "nxs": header, **headers})


def wants(*keys: str, longest_s: float = PATIENT) -> Wishes:
    return Wishes(warm=tuple(json.dumps(key) for key in keys), longest_s=longest_s)


def steals(*keys: str, longest_s: float = PATIENT, names: set[str] | None = None) -> Wishes:
    warm = tuple(json.dumps(key) for key in keys)
    known = None if names is None else frozenset(names)
    return Wishes(warm=warm, longest_s=longest_s, others=(THEIRS,), names=known)


@pytest.fixture
def w1(store: FleetStore) -> Process:
    return Process(store)


class TestWarm:
    def test_a_warm_key_comes_before_older_ones(self, store: FleetStore, w1: Process) -> None:
        put(store, SHARED, *(placed(store, k, key=k) for k in ("a", "b", "c")), placed(store, "d"))
        w1.wishes = wants("b")
        assert ids(w1.take_all()) == ["b", "a", "c", "d"]

    def test_of_several_the_oldest(self, store: FleetStore, w1: Process) -> None:
        texts = [placed(store, f"{k}{n}", key=k) for n, k in enumerate("cbab")]
        put(store, SHARED, *texts)
        w1.wishes = wants("a", "b")
        assert ids(w1.take_all()) == ["b1", "a2", "b3", "c0"]

    def test_what_is_taken_is_held_as_it_was_and_nothing_else_moves(
        self, store: FleetStore, w1: Process
    ) -> None:
        texts = [placed(store, k, key=k) for k in "abc"]
        put(store, SHARED, *texts)
        w1.wishes = wants("b")
        assert w1.ask()[:3] == [TAKEN, SHARED, texts[1]]
        assert w1.held() == {w1.last_token: (texts[1], SHARED)}
        assert task_ids(store, SHARED) == ["a", "c"]

    def test_the_very_same_text_twice_is_taken_once(self, store: FleetStore, w1: Process) -> None:
        twin = placed(store, "b", key="b")
        put(store, SHARED, placed(store, "a"), twin, placed(store, "c"), twin)
        w1.wishes = wants("b")
        w1.take()
        assert task_ids(store, SHARED) == ["a", "c", "b"], "the older of the two"

    @pytest.mark.parametrize(("before", "first"), [(LOOK - 1, "warm"), (LOOK, "cold0")])
    def test_only_among_the_oldest(
        self, store: FleetStore, w1: Process, before: int, first: str
    ) -> None:
        put(store, SHARED, *(placed(store, f"cold{n}", key="x") for n in range(before)))
        put(store, SHARED, placed(store, "warm", key="w"))
        w1.wishes = wants("w")
        w1.take()
        assert w1.held_ids() == [first]

    @pytest.mark.parametrize(("ago", "first"), [(50.0, "warm"), (150.0, "cold")])
    def test_not_when_the_oldest_has_waited_too_long(
        self, store: FleetStore, w1: Process, ago: float, first: str
    ) -> None:
        put(store, SHARED, placed(store, "cold", ago=ago), placed(store, "warm", key="w"))
        w1.wishes = wants("w", longest_s=100.0)
        w1.take()
        assert w1.held_ids() == [first]

    def test_what_does_not_say_since_when_it_waits_is_not_passed_over(
        self, store: FleetStore, w1: Process
    ) -> None:
        """A stock producer's task would wait for ever behind those that come after it."""
        put(store, SHARED, message("stock", SHARED), placed(store, "warm", key="w"))
        w1.wishes = wants("w")
        assert ids(w1.take_all()) == ["stock", "warm"]

    def test_the_own_line_keeps_its_order(self, store: FleetStore, w1: Process) -> None:
        """What is placed here is warm here, and waits its turn."""
        put(store, OWN, *(placed(store, k, key=k, to="w1") for k in ("a", "b")))
        w1.wishes = wants("b")
        assert ids(w1.take_all()) == ["a", "b"]

    def test_a_more_urgent_priority_comes_first(self, store: FleetStore, w1: Process) -> None:
        put(store, SHARED, placed(store, "warm", key="w"), priority=6)
        put(store, SHARED, placed(store, "urgent", key="x"), priority=3)
        w1.wishes = wants("w")
        assert ids(w1.take_all()) == ["urgent", "warm"]

    def test_a_queue_that_comes_first_comes_first(self, store: FleetStore, w1: Process) -> None:
        put(store, SHARED, placed(store, "warm", key="w"))
        put(store, "mail", placed(store, "cold", key="x"))
        w1.wishes = wants("w")
        assert ids(w1.take_all("mail", SHARED)) == ["cold", "warm"]

    @pytest.mark.parametrize("key", ["größe", 'a "b" \\c', "100%", ".*", "\U0001f600", "a\nb"])
    def test_a_key_of_any_signs(self, store: FleetStore, w1: Process, key: str) -> None:
        put(store, SHARED, placed(store, "a", key=key + "x"), placed(store, "b", key=key))
        w1.wishes = wants(key)
        w1.take()
        assert w1.held_ids() == ["b"]

    def test_a_paused_queue_gives_nothing_warm_either(self, store: FleetStore, w1: Process) -> None:
        put(store, SHARED, placed(store, "a"), placed(store, "warm", key="w"))
        store.client.sadd(store.keys.paused_queues(), SHARED)
        w1.wishes = wants("w")
        assert w1.ask() == [NOTHING, -1]
        assert task_ids(store, SHARED) == ["a", "warm"]


class TestOthers:
    def test_what_waits_for_another_is_taken_oldest_first(
        self, store: FleetStore, w1: Process
    ) -> None:
        texts = [placed(store, name, to="w2") for name in "abc"]
        put(store, THEIRS, *texts)
        assert w1.take_all() == []
        w1.wishes = steals()
        assert w1.ask()[:3] == [TAKEN, THEIRS, texts[0]]
        assert w1.held() == {w1.last_token: (texts[0], THEIRS)}
        assert ids(w1.take_all()) == ["b", "c"]

    def test_all_own_queues_and_priorities_come_first(self, store: FleetStore, w1: Process) -> None:
        put(store, THEIRS, placed(store, "theirs", to="w2"), priority=0)
        put(store, SHARED, placed(store, "shared"), priority=9)
        put(store, OWN, placed(store, "own", to="w1"), priority=9)
        w1.wishes = steals()
        assert ids(w1.take_all()) == ["own", "shared", "theirs"]

    def test_of_theirs_the_most_urgent_first(self, store: FleetStore, w1: Process) -> None:
        for priority in reversed(store.wire.steps):
            put(store, THEIRS, placed(store, f"p{priority}", to="w2"), priority=priority)
        w1.wishes = steals()
        assert ids(w1.take_all()) == ["p0", "p3", "p6", "p9"]

    def test_what_its_sender_put_there_stays(self, store: FleetStore, w1: Process) -> None:
        pinned = message("pinned", THEIRS)
        put(store, THEIRS, pinned, b"no message", placed(store, "a", to="w2"))
        w1.wishes = steals()
        assert ids(w1.take_all()) == ["a"]
        assert store.client.lrange(THEIRS, 0, -1) == ["no message", pinned]

    def test_one_with_arguments_that_look_like_a_placement_stays(
        self, store: FleetStore, w1: Process
    ) -> None:
        put(store, THEIRS, message("pinned", THEIRS, argsrepr='(\'"nxs": {"at": 1.0}\',)'))
        w1.wishes = steals()
        assert w1.take_all() == []

    def test_only_tasks_of_these_names(self, store: FleetStore, w1: Process) -> None:
        names = ["shop.mail", "shop.pay", "shop.pay2", "shop.mail"]
        put(store, THEIRS, *(placed(store, f"{n}", task=t, to="w2") for n, t in enumerate(names)))
        w1.wishes = steals(names={"shop.pay", "shop.other"})
        assert ids(w1.take_all()) == ["1"]
        w1.wishes = steals(names=set())
        assert w1.take_all() == [], "no name is none of them"
        w1.wishes = steals(names=None)
        assert ids(w1.take_all()) == ["0", "2", "3"]

    @pytest.mark.parametrize(("before", "taken"), [(LOOK - 1, ["a"]), (LOOK, [])])
    def test_only_among_the_oldest(
        self, store: FleetStore, w1: Process, before: int, taken: list[str]
    ) -> None:
        put(store, THEIRS, *(message(f"pinned{n}", THEIRS) for n in range(before)))
        put(store, THEIRS, placed(store, "a", to="w2"))
        w1.wishes = steals()
        assert ids(w1.take_all()) == taken

    def test_what_waits_for_a_warm_cache_is_left_to_it(
        self, store: FleetStore, w1: Process
    ) -> None:
        keys = ("x", "w", "")
        put(store, THEIRS, *(placed(store, f"key-{k}", key=k, to="w2") for k in keys))
        w1.wishes = steals("w")
        assert ids(w1.take_all()) == ["key-w", "key-"]
        assert task_ids(store, THEIRS) == ["key-x"]

    def test_until_its_time_is_over(self, store: FleetStore, w1: Process) -> None:
        for ago in (150.0, 50.0):
            put(store, THEIRS, placed(store, f"ago-{ago:.0f}", key="x", ago=ago, to="w2"))
        w1.wishes = steals(longest_s=100.0)
        assert ids(w1.take_all()) == ["ago-150"]

    def test_with_the_shared_queue_nothing_of_theirs_is_taken(
        self, store: FleetStore, w1: Process
    ) -> None:
        put(store, THEIRS, placed(store, "a", to="w2"))
        store.client.sadd(store.keys.paused_queues(), SHARED)
        w1.wishes = steals()
        assert w1.ask() == [NOTHING, -1]
        store.client.srem(store.keys.paused_queues(), SHARED)
        assert ids(w1.take_all()) == ["a"]

    def test_a_process_that_has_lost_its_place_takes_nothing_of_theirs(
        self, store: FleetStore, w1: Process
    ) -> None:
        put(store, THEIRS, placed(store, "a", to="w2"))
        w1.loses_its_name()
        w1.wishes = steals()
        assert w1.ask()[0] < 0
        assert task_ids(store, THEIRS) == ["a"]

    def test_two_thieves_and_their_owner_take_each_once(self, store: FleetStore) -> None:
        names = [f"t{n}" for n in range(30)]
        owner, thieves = Process(store, "w2"), [Process(store, "w1"), Process(store, "w3")]
        put(store, THEIRS, *(placed(store, name, to="w2") for name in names))
        for thief in thieves:
            thief.wishes = steals()
        taken: list[str] = []
        while (answers := [p.ask() for p in (owner, *thieves)]) and answers[0][0] == TAKEN:
            taken += [read(str(a[2])).task_id for a in answers if a[0] == TAKEN]
        assert taken == names
        assert sorted(owner.held_ids() + thieves[0].held_ids() + thieves[1].held_ids()) == sorted(
            names
        )


class TestLines:
    """The set of those that have a line, in which thieves look for the longest."""

    def lines(self, store: FleetStore) -> dict[str, float]:
        found: Any = store.client.zrange(store.keys.waiting(), 0, -1, withscores=True)
        return dict(found)

    def test_it_follows_what_the_owner_takes(self, store: FleetStore, w1: Process) -> None:
        put(store, OWN, *(placed(store, name, to="w1") for name in "ab"))
        put(store, OWN, placed(store, "c", to="w1"), priority=9)
        put(store, SHARED, placed(store, "d"))
        seen = []
        for _ in range(4):
            w1.take()
            seen.append(self.lines(store))
        assert seen == [{"w1": 2}, {"w1": 1}, {"w1": 1}, {}]

    def test_what_comes_from_elsewhere_says_nothing_of_it(
        self, store: FleetStore, w1: Process
    ) -> None:
        store.client.zadd(store.keys.waiting(), {"w1": 5, "w2": 7})
        put(store, SHARED, placed(store, "a"))
        put(store, THEIRS, placed(store, "b", to="w2"))
        w1.wishes = steals()
        assert len(w1.take_all()) == 2
        assert self.lines(store) == {"w1": 5, "w2": 7}, "who steals looks at the lists themselves"


class TestLongest:
    """The snapshot of those with the longest lines."""

    def waiting(self, store: FleetStore, name: str, count: int, told: int | None = None) -> None:
        queue = store.keys.own_queue(name)
        put(store, queue, *(message(f"{name}-{n}", queue) for n in range(count)))
        store.client.zadd(store.keys.waiting(), {name: count if told is None else told})

    def ids(self, store: FleetStore, longest: int, also: str = "") -> list[str]:
        return [i.id for i in store.snapshot(longest=longest, also=also).instances]

    def test_so_many_and_oneself(self, store: FleetStore) -> None:
        for n in range(1, 6):
            Process(store, f"w{n}")
            self.waiting(store, f"w{n}", n)
        assert self.ids(store, 2) == ["w4", "w5"]
        assert self.ids(store, 2, also="w1") == ["w1", "w4", "w5"]
        assert self.ids(store, 2, also="w5") == ["w4", "w5"]
        assert self.ids(store, 99) == ["w1", "w2", "w3", "w4", "w5"]
        assert len(store.snapshot().instances) == 5

    def test_it_reads_what_the_whole_snapshot_reads(self, store: FleetStore) -> None:
        holder = Process(store, "w1", slots=4, running=1)
        put(store, SHARED, placed(store, "held"), placed(store, "waits"))
        holder.take()
        self.waiting(store, "w1", 3)
        whole, part = store.snapshot(), store.snapshot(longest=1)
        assert part.instances == whole.instances
        assert (part.instances[0].queued, part.instances[0].inflight) == (3, 1)
        assert (part.shared_queue, part.shared_depth) == (SHARED, 1)

    def test_a_line_that_is_over_is_none_of_them_any_more(self, store: FleetStore) -> None:
        Process(store, "w1")
        Process(store, "w2")
        self.waiting(store, "w1", 0, told=9)
        self.waiting(store, "w2", 2)
        assert self.ids(store, 1) == ["w1"], "it is looked at once more"
        assert self.ids(store, 1) == ["w2"]
        store.snapshot()
        assert store.client.zscore(store.keys.waiting(), "w2") == 2

    def test_one_without_a_record_keeps_nobody_s_place(self, store: FleetStore) -> None:
        Process(store, "w1")
        self.waiting(store, "w1", 2)
        for n in range(3):
            self.waiting(store, f"forgotten{n}", 0, told=99)
        assert [self.ids(store, 1) for _ in range(3)] == [[], [], []], "each is looked at once"
        assert self.ids(store, 1) == ["w1"]

    def test_nobody_waits(self, store: FleetStore) -> None:
        Process(store, "w1")
        assert self.ids(store, 16) == []
        assert self.ids(store, 16, also="w1") == ["w1"]
        assert self.ids(store, 16, also="w9") == []

    def test_a_heartbeat_tells_of_a_line_that_no_submitter_of_the_fleet_has_made(
        self, store: FleetStore
    ) -> None:
        Process(store, "w1", queued=4)
        Process(store, "w2", queued=0)
        Process(store, "w3")
        assert store.client.zrange(store.keys.waiting(), 0, -1, withscores=True) == [("w1", 4)]


class TestAhead:
    """A process of one slot, which is taken, in a fleet of two such instances."""

    @pytest.fixture
    def full(self, store: FleetStore, w1: Process) -> Process:
        Process(store, "w2")
        w1.wishes = Wishes(ahead=1)
        return w1

    def test_what_others_could_start_is_left(self, store: FleetStore, full: Process) -> None:
        put(store, SHARED, *(message(k) for k in "abcd"))
        assert ids(full.take_all()) == ["a", "b"], "one is left for each slot of the fleet"
        assert task_ids(store, SHARED) == ["c", "d"]

    def test_with_more_slots_more_is_left(self, store: FleetStore, full: Process) -> None:
        put(store, SHARED, *(message(k) for k in "abcdef"))
        full.wishes = Wishes(ahead=2)
        assert ids(full.take_all()) == ["a", "b"]

    def test_of_the_own_queue_all(self, store: FleetStore, full: Process) -> None:
        put(store, OWN, message("a", OWN))
        assert ids(full.take_all()) == ["a"]

    def test_what_is_left_is_not_passed_over(self, store: FleetStore, full: Process) -> None:
        put(store, SHARED, message("urgent"))
        put(store, OWN, message("later", OWN), priority=3)
        assert full.take_all() == []

    def test_a_paused_queue_is_passed_over(self, store: FleetStore, full: Process) -> None:
        put(store, "mail", message("m", "mail"))
        put(store, SHARED, *(message(k) for k in "abc"))
        store.client.sadd(store.keys.paused_queues(), "mail")
        assert ids(full.take_all("mail", SHARED)) == ["a"]

    def test_a_free_slot_takes_all(self, store: FleetStore, full: Process) -> None:
        put(store, SHARED, *(message(k) for k in "abc"))
        full.wishes = Wishes()
        assert ids(full.take_all()) == ["a", "b", "c"]
