"""One decision without the publish, and one look at the fleet, which many decisions share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median
from time import perf_counter_ns

from bench.catalog import BenchError, Say
from bench.crew import Crew
from bench.figure import Figure, Goal
from bench.rounds import collected, percentile
from bench.shop import TASKS, fleet_shop
from nxs_tasks import Fleet
from nxs_tasks.clock import FakeClock
from nxs_tasks.model.demand import Demand, Traits
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.policy.fleet.placer import Placer

BENCH = "submit"
#: Decisions after each look: about what one process submits in a second.
EACH_LOOK = 60 * len(TASKS)
#: What tasks want that want everything: how many keys there are, and bytes for each task.
MODELS, MEMORY = 87, 1 << 20


@dataclass(slots=True)
class Samples:
    """Times in ns."""

    route: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    wanting: list[int] = field(default_factory=list)  # of tasks that want everything there is
    first: list[int] = field(default_factory=list)  # of a task name after a look
    snapshot: list[int] = field(default_factory=list)
    placer: list[int] = field(default_factory=list)  # built from a snapshot


def measure(
    instances: int, url: str, say: Say, *, slots: int, looks: int, goal: Goal | None
) -> Iterator[Figure]:
    """The figures for one size of the fleet."""
    clock = FakeClock()
    samples = Samples()
    with fleet_shop(f"{url}/0", clock) as (shop, fleet):
        store = fleet.runtime.store()
        store.client.flushall()
        crew = Crew(store, fleet.settings, TASKS, count=instances, slots=slots, busy=False)
        crew.join()
        tasks = dict(zip(TASKS, shop.tasks, strict=True))
        for number in range(looks + 1):
            say(f"decision, {instances} instances: look {number} of {looks}")
            crew.beat()
            clock.advance(fleet.settings.view_max_age)
            seen = samples if number else Samples()
            with collected():
                _route(fleet, tasks, seen)
                _place(fleet, seen)
                _place_wanting(fleet, seen, Random(number))
        yield from _figures(instances, samples, fleet.settings.view_max_age, goal)


def _route(fleet: Fleet, tasks: dict[str, object], seen: Samples) -> None:
    route = fleet.submitter.route
    names = list(tasks) * (EACH_LOOK // len(tasks))
    # The look itself, which is measured apart.
    route(names[0], (), {}, {}, task=tasks[names[0]])
    for name in names:
        task, options = tasks[name], dict[str, object]()
        start = perf_counter_ns()
        found = route(name, (), {}, options, task=task)
        seen.route.append(perf_counter_ns() - start)
        if found is None:
            raise BenchError(f"a decision for {name} chose no instance")


def _place(fleet: Fleet, seen: Samples) -> None:
    start = perf_counter_ns()
    snapshot = fleet.runtime.store().snapshot()
    seen.snapshot.append(perf_counter_ns() - start)
    start = perf_counter_ns()
    placer = Placer(snapshot, fleet.settings)
    seen.placer.append(perf_counter_ns() - start)
    names = list(TASKS) * (EACH_LOOK // len(TASKS))
    for number, name in enumerate(names):
        start = perf_counter_ns()
        placer.place(name)
        took = perf_counter_ns() - start
        seen.place.append(took)
        if number < len(TASKS):
            seen.first.append(took)


def _place_wanting(fleet: Fleet, seen: Samples, rng: Random) -> None:
    """Tasks with an affinity key, much I/O, two slots and memory, in a fleet at work."""
    snapshot = fleet.runtime.store().snapshot()
    traits = {name: Traits(io=True, slots=2, memory=MEMORY) for name in TASKS}
    profile = replace(
        snapshot.instances[0].profile or Profile(frozenset(), frozenset()), traits=traits
    )
    at_work = [_at_work(instance, profile, rng) for instance in snapshot.instances]
    placer = Placer(replace(snapshot, instances=tuple(at_work)), fleet.settings)
    for number in range(EACH_LOOK):
        demand = Demand(TASKS[number % len(TASKS)], _key(rng), io=True, slots=2, memory=MEMORY)
        start = perf_counter_ns()
        placer.place(demand)
        seen.wanting.append(perf_counter_ns() - start)


def _at_work(instance: Instance, profile: Profile, rng: Random) -> Instance:
    types = {rng.choice(TASKS): rng.randint(1, 2) for _ in range(3)}
    load = replace(instance.load, slots=16, types=types, keys=tuple(_key(rng) for _ in range(4)))
    since = instance.since - rng.uniform(0.0, 120.0)
    return replace(instance, load=load, profile=profile, since=since)


def _key(rng: Random) -> str:
    return f"model:{rng.randrange(MODELS)}"


def _figures(
    instances: int, seen: Samples, view_max_age: float, goal: Goal | None
) -> Iterator[Figure]:
    def figure(metric: str, value: float, unit: str, goal: Goal | None = None) -> Figure:
        return Figure(bench=BENCH, metric=metric, value=value, unit=unit, goal=goal)

    at = f"at {instances}"
    yield figure(f"router {at}, median", median(seen.route) / 1e3, "µs", goal)
    yield figure(f"router {at}, p99", percentile(seen.route, 99) / 1e3, "µs")
    yield figure(f"place {at}, median", median(seen.place) / 1e3, "µs")
    yield figure(f"place {at}, p99", percentile(seen.place, 99) / 1e3, "µs")
    yield figure(f"place {at}, all terms, median", median(seen.wanting) / 1e3, "µs", goal)
    yield figure(f"place {at}, all terms, p99", percentile(seen.wanting, 99) / 1e3, "µs")
    yield figure(f"place {at}, first of a name", median(seen.first) / 1e3, "µs")
    snapshot, placer, first = (median(s) / 1e6 for s in (seen.snapshot, seen.placer, seen.first))
    yield figure(f"look {at}, snapshot", snapshot, "ms")
    yield figure(f"look {at}, Placer", placer, "ms")
    share = (snapshot + placer + first * len(TASKS)) / (view_max_age * 1e3)
    yield figure(f"look {at}, share of time", share * 100, "%")
