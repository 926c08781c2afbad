"""One tick of the rebalancer at 1,000 instances with 1,000,000 waiting tasks, and its moves.

A look and a plan are one tick where nothing is to be moved: nearly always. Moves are measured where
some instances have just joined, and where one part of the fleet has all the work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

from bench.catalog import BenchError, Say
from bench.crew import Crew
from bench.figure import Figure, Goal
from bench.rounds import collected
from bench.server import own_server
from bench.shop import TASKS, fleet_shop
from nxs_tasks.clock import FakeClock
from nxs_tasks.control.effects import apply_all
from nxs_tasks.control.rebalancing import plan
from nxs_tasks.model.decision import Migrate
from nxs_tasks.policy.fleet.rebalance import rebalance
from nxs_tasks.runtime import Runtime
from nxs_tasks.store import FleetStore
from nxs_tasks.store.message import read

INSTANCES, SLOTS, EACH = 1000, 4, 1000
ROUNDS = 7
#: Instances that have just joined.
NEW = 10
#: Of one instance that has a long line: the cost of a move must not grow with it.
LONG = 1_000_000
TICK_S = Goal("value", "<=", 1.0)
NO_MORE = Goal("ratio", "<=", 1.5)
NONE = Goal("value", "<=", 0.0)


def run(say: Say) -> Iterator[Figure]:
    """All figures, on a server of its own."""
    with own_server() as url, fleet_shop(f"{url}/0", FakeClock()) as (_, fleet):
        runtime = fleet.runtime
        store = runtime.store()
        crew = Crew(store, fleet.settings, TASKS, count=INSTANCES, slots=SLOTS, busy=True)
        crew.join()
        ids = [i.id for i in store.snapshot().instances]
        say(f"{INSTANCES} instances, {EACH} tasks wait for each")
        for number, instance in enumerate(ids):
            _fill(store, instance, EACH, number)
        yield from _level(runtime, crew, say)
        yield from _uneven(runtime, crew, ids, say)
        yield from _long(runtime, crew, ids[:2], say)


def _fill(store: FleetStore, instance: str, count: int, number: int = 0) -> None:
    """As if so many had been placed there, one after the other."""
    queue = store.keys.own_queue(instance)
    pipe = store.client.pipeline(transaction=False)
    pipe.delete(queue)
    start = f'{{"body": "{"x" * 300}", "content-type": "application/json", "headers": '
    for first in range(0, count, 1000):
        texts = []
        for n in range(first, min(first + 1000, count)):
            about = {"to": instance, "score": 0.9, "why": "best", "at": n + number / 1e6}
            headers = {"id": f"{instance}-{n}", "task": TASKS[n % len(TASKS)], "nxs": about}
            info = {"delivery_info": {"exchange": "", "routing_key": queue}, "priority": 0}
            texts.append(f'{start}{json.dumps(headers)}, "properties": {json.dumps(info)}}}')
        pipe.lpush(queue, *texts)
        pipe.execute()


def _figure(metric: str, value: float, unit: str, **more: Any) -> Figure:
    return Figure(bench="rebalance", metric=metric, value=value, unit=unit, **more)


def _level(runtime: Runtime, crew: Crew, say: Say) -> Iterator[Figure]:
    """Look and plan, where nothing is to be done."""
    whole, look, think = list[float](), list[float](), list[float]()
    store = runtime.store()
    for number in range(ROUNDS):
        say(f"look and plan: round {number + 1} of {ROUNDS}")
        crew.beat()
        with collected():
            start = perf_counter()
            found = plan(runtime)
            whole.append(perf_counter() - start)
            start = perf_counter()
            snapshot = store.snapshot()
            middle = perf_counter()
            rebalance(snapshot, runtime.settings, snapshot.taken_at)
            end = perf_counter()
        look.append(middle - start)
        think.append(end - middle)
        if found.moves:
            raise BenchError(f"a level fleet is to be moved: {found.moves[0]}")
    at = f"{INSTANCES:,} × {EACH:,}"
    yield _figure(f"tick of {at}, level", median(whole), "s", goal=TICK_S)
    yield _figure(f"tick of {at}, look", median(look), "s")
    yield _figure(f"tick of {at}, plan", median(think), "s")


def _uneven(runtime: Runtime, crew: Crew, ids: Sequence[str], say: Say) -> Iterator[Figure]:
    """A tick with moves: some have just joined; then nine in ten have nothing."""
    for label, empty, goal in (
        (f"{NEW} new", ids[:: INSTANCES // NEW], TICK_S),
        ("nine of ten empty", [i for n, i in enumerate(ids) if n % 10], None),
    ):
        say(f"moves, {label}")
        crew.beat()
        store = runtime.store()
        store.client.delete(*(store.keys.own_queue(i) for i in empty))
        crew.rest()
        with collected():
            start = perf_counter()
            found = plan(runtime)
            planned = perf_counter()
            outcomes = apply_all(found.moves, store, runtime.settings)
            took = perf_counter()
        refused = [o.detail for o in outcomes if not o.applied]
        if refused or not found.moves:
            raise BenchError(f"{label}: {len(found.moves)} moves, {len(refused)} refused")
        tasks = sum(m.tasks for m in found.moves)
        yield _figure(f"tick, {label}", took - start, "s", goal=goal)
        yield _figure(f"tick, {label}: migrations", len(found.moves), "migrations")
        yield _figure(f"tick, {label}: moved", tasks, "tasks")
        yield _figure(f"tick, {label}: speed", tasks / (took - planned), "tasks/s")
        yield _figure(f"tick, {label}: inversions", _inversions(store, found.moves), "", goal=NONE)


def _inversions(store: FleetStore, migrations: Sequence[Migrate]) -> int:
    """Tasks that are to be taken before an older one of the same line."""
    wrong = 0
    for move in migrations:
        for instance in (move.source, move.target):
            raws = store.client.lrange(store.keys.own_queue(instance), 0, -1)
            ages = [float((read(str(raw)).placed or {})["at"]) for raw in reversed(raws)]
            wrong += sum(a > b for a, b in pairwise(ages))
    return wrong


def _long(runtime: Runtime, crew: Crew, ids: Sequence[str], say: Say) -> Iterator[Figure]:
    """The same migration out of a line of a million, beside one of ten thousand."""
    store, settings = runtime.store(), runtime.settings
    times: dict[int, float] = {}
    for count in (10_000, LONG):
        say(f"a migration out of {count:,}")
        for instance in ids:
            store.client.delete(store.keys.own_queue(instance))
        _fill(store, ids[0], count)
        crew.beat()
        crew.rest()
        found = store.snapshot()
        a, b = found.get(ids[0]), found.get(ids[1])
        if a is None or b is None or b.profile is None:
            raise BenchError("an instance is not there")
        move = Migrate(
            source=a.id,
            source_epoch=a.epoch,
            source_state=a.state,
            target=b.id,
            target_epoch=b.epoch,
            target_state=b.state,
            tasks=settings.migrate_most,
            after=SLOTS,
            knows=b.profile.tasks,
            reason="measured",
        )
        with collected():
            start = perf_counter()
            [outcome] = apply_all([move], store, settings)
            times[count] = perf_counter() - start
        if not outcome.applied:
            raise BenchError(outcome.detail)
    yield _figure(
        f"{settings.migrate_most:,} tasks out of {LONG:,}",
        times[LONG],
        "s",
        peer="out of 10,000",
        peer_value=times[10_000],
        ratio=times[LONG] / times[10_000],
        goal=NO_MORE,
    )
