"""The simulator: time, arrivals, machines; and what it must find because it is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, pvariance
from typing import Any

import pytest

from bench.sim.erlang import mean_wait, waits
from bench.sim.loop import EPOCH_S, Loop, LoopClock
from bench.sim.machine import Machine
from bench.sim.peers import AtRandom, Central, LeastRequests, Literal, PowerOfTwo, RoundRobin
from bench.sim.placing import Nxs
from bench.sim.work import (
    Job,
    Service,
    TraceError,
    at_once,
    constant,
    exponential,
    gamma,
    hyperexponential,
    of_scv,
    poisson,
    read_trace,
    renewal,
    take,
    uniform,
)
from bench.sim.world import World
from tests.unit.builders import case, knobs


def a_world(*machines: Machine, **more: Any) -> World:
    world = World(Loop(), machines, Random(1), **more)
    for machine in machines:
        machine.beat(0.0)
    return world


def ran(world: World, jobs: Sequence[Job], *placings: Any) -> list[Job]:
    world.submit(jobs, placings or (Central(),))
    world.loop.run()
    return world.done


class TestTime:
    def test_what_is_due_first_happens_first(self) -> None:
        loop, seen = Loop(), list[tuple[str, float]]()
        for name, at in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("past", -5.0)):
            loop.at(at, lambda name=name: seen.append((name, loop.now)))
        loop.run(until=1.5)
        assert seen == [("past", 0.0), ("a", 1.0)]
        loop.run()
        assert seen[2:] == [("b", 2.0), ("c", 2.0)]

    def test_again_and_again_as_long_as_it_is_wanted(self) -> None:
        loop, seen = Loop(), list[float]()
        loop.every(2.0, lambda: seen.append(loop.now), lambda: len(seen) < 3)
        loop.run()
        assert seen == [0.0, 2.0, 4.0]

    def test_a_clock_follows(self) -> None:
        loop = Loop()
        clock = LoopClock(loop)
        loop.at(3.0, lambda: None)
        loop.run()
        assert (clock.monotonic(), clock.now()) == (3.0, EPOCH_S + 3.0)


class TestWork:
    @pytest.mark.parametrize(
        ("service", "mean", "scv"),
        [
            case("exponential", exponential(2.0), 2.0, 1.0),
            case("uniform", uniform(1.0, 3.0), 2.0, 1 / 12),
            case("constant", constant(2.0), 2.0, 0.0),
            case("hyperexponential", hyperexponential(2.0, 10.0), 2.0, 10.0),
            case("gamma", gamma(2.0, 0.5), 2.0, 0.5),
            case("as even as memoryless", of_scv(2.0, 1.0), 2.0, 1.0),
            case("more even", of_scv(2.0, 0.5), 2.0, 0.5),
            case("less even", of_scv(2.0, 10.0), 2.0, 10.0),
        ],
    )
    def test_a_service_has_its_mean_and_its_scv(
        self, service: Service, mean: float, scv: float
    ) -> None:
        rng = Random(3)
        drawn = [service(rng) for _ in range(200_000)]
        assert fmean(drawn) == pytest.approx(mean, rel=0.02)
        assert pvariance(drawn) / fmean(drawn) ** 2 == pytest.approx(scv, rel=0.06, abs=1e-9)

    def test_arrivals_have_their_rate_and_are_the_same_for_the_same_seed(self) -> None:
        jobs, again = (take(poisson(Random(5), 4.0, constant(1.0)), 20_000) for _ in range(2))
        assert jobs[-1].arrives == pytest.approx(20_000 / 4.0, rel=0.03)
        assert [j.arrives for j in jobs] == [j.arrives for j in again]

    def test_gaps_are_drawn_as_they_are_told(self) -> None:
        jobs = take(renewal(Random(5), constant(2.0), constant(1.0)), 3)
        assert [(job.number, job.arrives) for job in jobs] == [(0, 2.0), (1, 4.0), (2, 6.0)]

    def test_a_trace_is_read_in_the_order_of_its_arrivals(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("service,arrival,task,key\n2.5,110,b,m1\n1,100,,\n")
        first, second = read_trace(path)
        assert (first.arrives, first.service, first.task, first.key) == (0.0, 1.0, "task", "")
        assert (second.arrives, second.service, second.task, second.key) == (10.0, 2.5, "b", "m1")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            case("no column", "arrival,size\n1,2\n", "no column 'service'"),
            case("nothing", "", "no column 'arrival'"),
            case("no number", "arrival,service\n1,2\n1,soon\n", "line 3: arrival and service"),
            case("too few", "arrival,service\n1\n", "line 2: arrival and service"),
            case("negative", "arrival,service\n1,-2\n", "line 2: service must not be below 0"),
            case("endless", "arrival,service\ninf,2\n", "line 2"),
            case("not a number", "arrival,service\n1,nan\n", "line 2"),
        ],
    )
    def test_a_bad_trace_is_refused_by_line(self, tmp_path: Path, text: str, told: str) -> None:
        path = tmp_path / "trace.csv"
        path.write_text(text)
        with pytest.raises(TraceError) as refused:
            read_trace(path)
        assert told in str(refused.value)
        assert str(path) in str(refused.value)


class TestMachines:
    def test_a_free_slot_takes_its_own_line_first_and_then_what_is_shared(self) -> None:
        world = a_world(Machine("w1", slots=1), Machine("w2", slots=1))
        jobs = at_once(5, constant(1.0), Random(1))
        targets = iter(["w1", None, None, "w1", None])

        class Fixed:
            def choose(self, job: Job) -> str | None:
                return next(targets)

        done = ran(world, jobs, Fixed())
        starts = {job.number: (job.machine, job.started) for job in done}
        assert starts[0] == ("w1", 0.0)
        assert starts[1] == ("w2", 0.0)
        assert starts[3] == ("w1", 1.0), "its own line, although 2 has waited longer"
        assert starts[2] == ("w2", 1.0)

    def test_twice_the_speed_is_half_of_the_time(self) -> None:
        [job] = ran(a_world(Machine("w1", speed=2.0)), [Job(0, 0.0, 3.0)])
        assert job.sojourn == 1.5

    def test_a_choice_is_checked_when_it_comes(self) -> None:
        class First:
            def choose(self, job: Job) -> str | None:
                job.limit = 1
                return "w1"

        jobs = at_once(3, constant(1.0), Random(1))
        world = a_world(Machine("w1", slots=1), Machine("w2", slots=1), checked=True)
        assert sorted(job.started for job in ran(world, jobs, First())) == [0.0, 0.0, 1.0]

    def test_a_cache_holds_what_was_used_last(self) -> None:
        machine = Machine("w1", slots=1, cached=2)
        jobs = [Job(n, float(10 * n), 1.0, key=key) for n, key in enumerate("abacb")]
        done = ran(a_world(machine, reload_s=5.0), jobs)
        assert [job.sojourn for job in done] == [6.0, 6.0, 1.0, 6.0, 6.0]
        assert [job.hit for job in done] == [False, False, True, False, False]

    def test_one_that_joins_takes_part_at_once(self) -> None:
        world = a_world(Machine("w1", slots=1))
        world.loop.at(1.5, world.add, Machine("w2", slots=1))
        done = ran(world, at_once(3, constant(2.0), Random(1)))
        assert sorted((job.machine, job.started) for job in done) == [
            ("w1", 0.0),
            ("w1", 2.0),
            ("w2", 1.5),
        ]

    def test_a_black_hole_fails_what_it_takes(self) -> None:
        machine = Machine("w1")
        machine.fails_after = 0.01
        [job] = ran(a_world(machine), [Job(0, 0.0, 3.0)])
        assert (job.failed, job.sojourn) == (True, 0.01)
        assert (machine.tally.failed, machine.tally.succeeded) == (1, 0)

    def test_a_snapshot_has_counts_of_now_and_the_rest_of_the_last_beat(self) -> None:
        world = a_world(Machine("w1", slots=1))
        ran_before = at_once(3, constant(1.0), Random(1))

        class First:
            def choose(self, job: Job) -> str | None:
                return "w1"

        world.submit(ran_before, (First(),))
        world.loop.run(until=0.5)
        [live], [said] = (world.snapshot(live=live).instances for live in (True, False))
        assert (live.inflight, live.queued) == (1, 2)
        assert (said.inflight, said.queued) == (0, 0)
        assert live.load == said.load


class TestPlacings:
    @pytest.mark.parametrize(
        "make",
        [
            case("random", lambda world: AtRandom(world, Random(2))),
            case("round robin", RoundRobin),
            case("power of two", lambda world: PowerOfTwo(world, Random(2))),
            case("least requests", lambda world: LeastRequests(world, Random(2))),
            case("literal", lambda world: Literal(world, knobs(), 1.0)),
            case("nxs", lambda world: Nxs(world, knobs())),
        ],
    )
    def test_every_job_is_done_once(self, make: Any) -> None:
        world = a_world(*(Machine(f"w{n}", slots=2) for n in range(4)))
        jobs = take(poisson(Random(7), 6.0, exponential(1.0)), 2_000)
        done = ran(world, jobs, make(world))
        assert sorted(job.number for job in done) == list(range(2_000))
        assert all(job.arrives <= job.started <= job.ended for job in done)
        assert world.left == 0

    def test_the_literal_score_gives_all_of_one_look_to_one_machine(self) -> None:
        world = a_world(*(Machine(f"w{n}") for n in range(3)))
        jobs = [Job(n, 0.1 * n, 0.5) for n in range(9)]
        assert {job.machine for job in ran(world, jobs, Literal(world, knobs(), 1.0))} == {"w0"}

    def test_the_literal_score_holds_what_the_threshold_leaves_nobody(self) -> None:
        """While one waits in its line the only machine scores too low, until the next look."""
        world = a_world(Machine("w1", slots=1))
        literal = Literal(world, knobs(max_queue=1, threshold=0.7), 10.0)
        jobs = [Job(0, 1.0, 25.0), Job(1, 2.0, 1.0), Job(2, 11.0, 1.0)]
        done = {job.number: job for job in ran(world, jobs, literal)}
        assert done[1].started == 26.0
        assert done[2].started == 30.0


class TestExact:
    def test_erlang_c(self) -> None:
        assert waits(1, 0.5) == pytest.approx(0.5)
        assert waits(2, 1.0) == pytest.approx(1 / 3)
        assert mean_wait(1, 0.5) == pytest.approx(1.0)
        assert mean_wait(32, 0.8) == pytest.approx(0.0251, abs=5e-5)

    @pytest.mark.parametrize(("machines", "slots", "rho"), [(1, 1, 0.3), (2, 1, 0.5), (3, 2, 0.5)])
    def test_a_central_queue_waits_as_erlang_says(
        self, machines: int, slots: int, rho: float
    ) -> None:
        found = []
        for seed in range(4):
            world = a_world(*(Machine(f"w{n}", slots=slots) for n in range(machines)))
            arrivals = poisson(Random(seed), rho * machines * slots, exponential(1.0))
            done = ran(world, take(arrivals, 100_000))
            found.append(fmean(job.wait for job in done))
        assert fmean(found) == pytest.approx(mean_wait(machines * slots, rho), rel=0.02)
