"""The bench `results`: storing, submitting for and fetching a result, beside stock Celery.

What a task of a fleet stores is checked against who holds its message, in the same script that
stores it. And nobody subscribes to a result before somebody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from celery.app.task import Context

from bench.catalog import Say
from bench.figure import Figure, Goal
from bench.rounds import Result, Round, take_turns
from bench.server import own_server
from bench.shop import Shop, fleet_shop, plain_shop, plug, unplug
from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM
from nxs_tasks.store import connect
from nxs_tasks.store.guard import held_in
from nxs_tasks.store.token import Token

BENCH = "results"
PEER = "celery"
TURN = 100
ROUNDS = 9
ROUND_S = 1.0
TOKEN = Token("bench@ours", 1, 1)
LARGE = "x" * 100_000
#: Checking costs no round trip of its own.
STORE_GOAL = Goal("ratio", "<=", 1.10)
#: Subscribing to nothing pays for the placement.
SUBMIT_GOAL = Goal("ratio", "<=", 1.10)
FETCH_GOAL = Goal("ratio", "<=", 1.00)


class Doing:
    """One side: does something `TURN` times."""

    def __init__(self, once: Callable[[], object], fleet: Fleet | None = None) -> None:
        self._once = once
        self._fleet = fleet

    def enter(self) -> None:
        """Connect the signal of the fleet, which belongs to the process."""
        if self._fleet is not None:
            plug(self._fleet)

    def turn(self) -> None:
        """Do it."""
        for _ in range(TURN):
            self._once()

    def leave(self) -> None:
        """Disconnect the signal."""
        if self._fleet is not None:
            unplug(self._fleet)


def run(say: Say) -> Iterator[Figure]:
    """All figures, on a server of its own: ours in database 0, the peer's in database 1."""
    with (
        own_server() as url,
        plain_shop(f"{url}/1") as plain,
        fleet_shop(f"{url}/0", SYSTEM) as (ours, fleet),
    ):
        store = fleet.runtime.store()
        store.client.hset(held_in(store, TOKEN), str(TOKEN), "[]")

        def measure(name: str, do: Callable[[Shop], Callable[[], object]], goal: Goal) -> Any:
            sides = Doing(do(ours), fleet), Doing(do(plain))
            return _measure(name, sides, goal, url, say)

        yield from measure("store a result", _storing(1), STORE_GOAL)
        yield from measure("store a result of 100 kB", _storing(LARGE), STORE_GOAL)
        yield from measure("delay() with a result", _submitting, SUBMIT_GOAL)
        yield from measure("get() of a result that is there", _fetching, FETCH_GOAL)


def _storing(value: Any) -> Callable[[Shop], Callable[[], object]]:
    def of(shop: Shop) -> Callable[[], object]:
        number = count()
        task = shop.tasks[0]

        def once() -> None:
            id_ = f"task-{next(number) % TURN}-{id(value)}"
            properties = {"delivery_tag": str(TOKEN)}
            request = Context({"id": id_, "task": task.name, "properties": properties})
            # Not a success: over that Celery writes nothing.
            shop.app.backend.store_result(id_, value, "PROGRESS", request=request)

        return once

    return of


def _submitting(shop: Shop) -> Callable[[], object]:
    task = shop.tasks[0]
    return lambda: task.apply_async((4711, "express"), ignore_result=False)


def _fetching(shop: Shop) -> Callable[[], object]:
    shop.app.backend.store_result("ready", 4711, "SUCCESS")
    return lambda: shop.app.AsyncResult("ready").get(timeout=10)


def _measure(
    name: str, sides: tuple[Doing, Doing], goal: Goal, url: str, say: Say
) -> Iterator[Figure]:
    def one(first: int) -> Round:
        done = take_turns(*sides, at_least_s=ROUND_S, first=first)
        for database in (0, 1):
            with connect(f"{url}/{database}") as client:
                client.delete("celery")
        return done

    say(f"{name}: warm-up")
    one(0)
    rounds = []
    for number in range(1, ROUNDS + 1):
        say(f"{name}: round {number} of {ROUNDS}")
        rounds.append(one(number % 2))
    result = Result(tuple(rounds))
    yield Figure(
        bench=BENCH,
        metric=name,
        value=result.per_turn(lambda r: r.ours_s) / TURN * 1e6,
        unit="µs",
        peer=PEER,
        peer_value=result.per_turn(lambda r: r.peer_s) / TURN * 1e6,
        ratio=result.ratio,
        goal=goal,
    )
