"""The simulated fleet: what it claims, steals, moves and ejects, by the policies as they are."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from bench.sim.claims import LOOK, take_from_another, take_shared
from bench.sim.ejections import Ejections
from bench.sim.fleet import Fleet
from bench.sim.keys import name_keys, zipf
from bench.sim.loop import Loop
from bench.sim.machine import Machine
from bench.sim.migrations import Migrations
from bench.sim.peers import Rendezvous
from bench.sim.work import Job
from bench.sim.world import World
from nxs_tasks.model.decision import Migrate
from nxs_tasks.model.state import State
from tests.unit.builders import case, knobs


class To:
    """Where a test wants each job."""

    def __init__(self, place: Callable[[Job], str | None]) -> None:
        self.choose = place


def all_to(name: str) -> To:
    return To(lambda job: name)


SHARED = To(lambda job: None)


def a_fleet(*machines: Machine, **settings: Any) -> Fleet:
    return Fleet(Loop(), machines, Random(1), knobs(**settings))


def some(count: int, seconds: float = 1.0, key: str = "", at: float = 0.0) -> list[Job]:
    return [Job(n, at, seconds, key=key) for n in range(count)]


def ran(fleet: Fleet, jobs: Sequence[Job], placing: Any) -> dict[int, Job]:
    fleet.submit(jobs, [placing])
    fleet.beat_every(5.0)
    fleet.loop.run()
    return {job.number: job for job in fleet.done}


def keyed(*keys: str) -> deque[Job]:
    return deque(Job(n, float(n), 1.0, key=key) for n, key in enumerate(keys))


class TestClaims:
    @pytest.mark.parametrize(
        ("keys", "warm", "longest_s", "taken"),
        [
            case("the oldest that is warm", "abba", "a", 99.0, 0),
            case("one behind the oldest", "babc", "a", 99.0, 1),
            case("nothing is warm", "bcd", "a", 99.0, 0),
            case("the oldest has waited too long", "ba", "a", 19.0, 0),
            case("as long as it may", "ba", "a", 20.0, 1),
            case("the last one that is looked at", "b" * (LOOK - 1) + "a", "a", 99.0, LOOK - 1),
            case("one too far", "b" * LOOK + "a", "a", 99.0, 0),
        ],
    )
    def test_what_is_shared(self, keys: str, warm: str, longest_s: float, taken: int) -> None:
        queue = keyed(*keys)
        assert take_shared(queue, warm, longest_s, 20.0).number == taken
        assert [job.number for job in queue] == [n for n in range(len(keys)) if n != taken]

    @pytest.mark.parametrize(
        ("keys", "warm", "longest_s", "taken"),
        [
            case("without a key", ["b", "", "a"], "a", 99.0, 1),
            case("with a warm one", ["b", "a"], "a", 99.0, 1),
            case("a cold one that has waited too long", ["b", "a"], "a", 19.0, 0),
            case("cold ones are left", ["b", "c"], "a", 99.0, None),
            case("one too far", ["b"] * LOOK + ["a"], "a", 99.0, None),
        ],
    )
    def test_what_waits_for_another(
        self, keys: list[str], warm: str, longest_s: float, taken: int | None
    ) -> None:
        line = keyed(*keys)
        job = take_from_another(line, warm, longest_s, 20.0)
        assert (job.number if job is not None else None) == taken
        assert len(line) == len(keys) - (job is not None)


class TestStealing:
    def test_who_is_idle_takes_from_the_longest_line_after_a_while(self) -> None:
        fleet = a_fleet(Machine("w1", slots=1), Machine("w2", slots=1))
        done = ran(fleet, some(20, 10.0), all_to("w1"))
        first = min(job.started for job in done.values() if job.machine == "w2")
        assert 1.0 <= first <= 2.0
        assert Counter(job.machine for job in done.values()) == {"w1": 10, "w2": 10}
        assert fleet.stolen == 10

    def test_what_the_other_can_start_itself_is_left_to_it(self) -> None:
        fleet = a_fleet(Machine("w1", slots=4), Machine("w2", slots=4))
        ran(fleet, some(4, 10.0), all_to("w1"))
        assert fleet.stolen == 0

    def test_it_ends_with_own_work(self) -> None:
        fleet = a_fleet(Machine("w1", slots=1), Machine("w2", slots=1))
        jobs = [*some(9, 10.0), Job(9, 5.0, 1.0)]
        done = ran(fleet, jobs, To(lambda job: "w2" if job.number == 9 else "w1"))
        own = done[9].ended
        after = [j for j in done.values() if j.machine == "w2" and j.started >= own]
        assert min(job.started for job in after) >= own + 1.0, "idle anew for a second"

    def test_a_key_that_is_cold_here_is_left_until_it_has_waited_too_long(self) -> None:
        """A task takes 10 s; so a thief that has run one leaves cold ones for 20 s."""
        fleet = a_fleet(Machine("w1", slots=1), Machine("w2", slots=1), affinity_wait=2.0)
        jobs = [Job(0, 0.0, 10.0, key="b"), *(Job(n, 0.0, 10.0, key="a") for n in range(1, 6))]
        done = ran(fleet, jobs, To(lambda job: "w2" if job.key == "b" else "w1"))
        stolen = [job for job in done.values() if job.key == "a" and job.machine == "w2"]
        assert min(job.started for job in stolen) >= 20.0
        assert fleet.machine("w2").keys[0] == "a"

    def test_a_line_that_grows_wakes_its_thief(self) -> None:
        fleet = a_fleet(Machine("w1", slots=1), Machine("w2", slots=1))
        fleet.loop.at(0.5, setattr, fleet.machine("w2"), "victim", "w1")
        done = ran(fleet, some(2, 10.0, at=0.5), all_to("w1"))
        assert {job.started for job in done.values()} == {0.5}


class TestLines:
    def test_a_job_joins_a_line_up_to_its_limit(self) -> None:
        def limited(job: Job) -> str:
            job.limit = 3
            return "w1"

        fleet = a_fleet(Machine("w1", slots=1))
        for job in some(5, 10.0):
            fleet.arrive(job, To(limited))
        assert (fleet.machine("w1").running, len(fleet.machine("w1").line)) == (1, 2)
        assert [job.number for job in fleet.shared] == [3, 4]

    def test_who_leaves_gives_back_what_waits_in_its_order(self) -> None:
        fleet = a_fleet(Machine("w1", slots=1))
        for job in some(4, 10.0):
            fleet.arrive(job, all_to("w1"))
        fleet.arrive(Job(9, 0.0, 1.0), SHARED)
        fleet.leave(fleet.machine("w1"))
        assert [job.number for job in fleet.shared] == [1, 2, 3, 9]
        fleet.loop.run()
        assert [job.number for job in fleet.done] == [0], "nothing else is taken"


def a_move(tasks: int, **more: Any) -> Migrate:
    known: dict[str, Any] = {
        "source": "w1",
        "source_epoch": 1,
        "source_state": State.ACTIVE,
        "target": "w2",
        "target_epoch": 1,
        "target_state": State.ACTIVE,
        "tasks": tasks,
        "after": 1,
        "knows": frozenset({"task"}),
        "reason": "by hand",
    }
    return Migrate(**{**known, **more})


class TestMigrations:
    def test_a_long_line_is_levelled_in_order_and_never_to_and_fro(self) -> None:
        fleet = a_fleet(*(Machine(f"w{n}", slots=1) for n in range(3)), steal_period=1e9)
        migrations = Migrations(fleet)
        migrations.begin(0.5)
        done = ran(fleet, some(300), all_to("w0"))
        assert max(job.ended for job in done.values()) < 200, "alone it needs 300 s"
        assert migrations.moved > 100
        assert (migrations.returned, migrations.inversions) == (0, 0)
        assert migrations.least_gap_s >= 60.0

    @pytest.mark.parametrize(
        ("more", "moved"),
        [
            case("the first stay", {}, [1, 2, 3]),
            case("a cold key stays", {"cold_after": 60.0}, [2, 3]),
            case("not if it is warm there", {"cold_after": 60.0, "warm": ("a",)}, [1, 2, 3]),
        ],
    )
    def test_what_moves(self, more: dict[str, Any], moved: list[int]) -> None:
        fleet = a_fleet(Machine("w1", slots=0), Machine("w2", slots=0))
        lines = [Job(n, 0.0, 1.0, key="a" if n == 1 else "") for n in range(5)]
        fleet.machine("w1").line.extend(lines[:4])
        fleet.machine("w2").line.append(lines[4])
        fleet.loop.now = 10.0
        Migrations(fleet)._migrate(a_move(3, **more))
        assert [job.number for job in fleet.machine("w2").line] == [*moved, 4]

    def test_the_account_sees_what_must_never_be(self) -> None:
        fleet = a_fleet(Machine("w1", slots=0), Machine("w2", slots=0), migrate_hold=60.0)
        fleet.machine("w1").line.extend(reversed(some(4)))
        migrations = Migrations(fleet)
        migrations._migrate(a_move(1))
        assert migrations.inversions == 2, "three were left in the wrong order"
        fleet.loop.now = 61.0
        back = {"source": "w2", "target": "w1", "after": 0}
        migrations._migrate(a_move(1, **back))
        assert migrations.returned == 1
        assert migrations.least_gap_s == 61.0


class TestEjections:
    @staticmethod
    def a_sick_fleet(machines: int = 4, sick: int = 1) -> tuple[Fleet, Ejections]:
        fleet = a_fleet(
            *(Machine(f"w{n}", slots=1, tasks=("task", "bad")) for n in range(machines))
        )
        for n in range(sick):
            fleet.machine(f"w{n}").fails_after = 0.01
        return fleet, Ejections(fleet)

    def test_one_that_fails_alone_takes_nothing_for_a_while(self) -> None:
        fleet, ejections = self.a_sick_fleet()
        jobs = [Job(n, n * 0.5, 1.0) for n in range(100)]
        turn = To(lambda job: f"w{job.number % 4}")
        done = ran(fleet, jobs, turn)
        [at, *_] = [when for when, who in ejections.times if who == "w0"]
        starts = [job.started for job in done.values() if job.machine == "w0" and job.started > at]
        assert min(starts, default=99.0) >= at + 30.0
        assert sum(job.failed for job in done.values() if job.started <= at) >= 5

    def test_how_a_task_goes_elsewhere_does_not_count_what_it_did_here(self) -> None:
        """Nine of ten run, and fail, on the sick one: of all of them few go well."""
        fleet, ejections = self.a_sick_fleet(machines=2)
        ran(fleet, some(3, 0.1), all_to("w1"))
        jobs = [Job(n, 10.0 + n * 0.5, 0.1) for n in range(100)]
        ran(fleet, jobs, To(lambda job: "w1" if job.number % 10 == 0 else "w0"))
        assert {who for _, who in ejections.times} == {"w0"}

    def test_what_fails_everywhere_is_no_fault_of_an_instance(self) -> None:
        fleet, ejections = self.a_sick_fleet(sick=0)
        jobs = [Job(n, n * 0.1, 0.1, "bad", bad=True) for n in range(400)]
        done = ran(fleet, jobs, To(lambda job: f"w{job.number % 4}"))
        assert all(job.failed for job in done.values())
        assert ejections.times == []

    def test_no_more_than_one_of_a_few_at_a_time(self) -> None:
        fleet, ejections = self.a_sick_fleet(machines=8, sick=2)
        jobs = [Job(n, n * 0.2, 0.5) for n in range(500)]
        ran(fleet, jobs, To(lambda job: f"w{job.number % 8}"))
        times = [at for at, _ in ejections.times]
        assert len({who for _, who in ejections.times}) == 2
        assert all(b - a >= 30.0 for a, b in pairwise(times))


class TestKeys:
    def test_shares_fall_by_rank(self) -> None:
        shares = zipf(87, 0.31)
        assert sum(shares) == pytest.approx(1.0)
        assert shares[0] == pytest.approx(0.31)
        assert shares == sorted(shares, reverse=True)
        assert sum(shares[:16]) == pytest.approx(0.80, abs=0.005)

    def test_some_repeat_what_came_just_before(self) -> None:
        def lately(repeat: float) -> float:
            jobs = some(20_000)
            name_keys(jobs, [0.001] * 1_000, Random(1), repeat=repeat)
            keys = [job.key for job in jobs]
            return sum(k in keys[max(0, n - 4) : n] for n, k in enumerate(keys)) / len(keys)

        assert lately(0.0) < 0.01
        assert lately(0.6) == pytest.approx(0.6, abs=0.02)

    def test_a_hash_moves_only_the_keys_of_the_one_that_is_gone(self) -> None:
        def chosen(names: Sequence[str]) -> dict[str, str | None]:
            world = World(Loop(), [Machine(name) for name in names], Random(1))
            hashed = Rendezvous(world)
            return {f"k{n}": hashed.choose(Job(n, 0.0, 1.0, key=f"k{n}")) for n in range(200)}

        before, after = chosen(["w1", "w2", "w3"]), chosen(["w1", "w2"])
        assert set(before.values()) == {"w1", "w2", "w3"}
        assert all(after[key] == name for key, name in before.items() if name != "w3")
