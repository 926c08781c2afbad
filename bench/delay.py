"""`delay()` of an application with a fleet beside `delay()` of the same application without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from bench.catalog import BenchError, Say
from bench.crew import Crew
from bench.figure import Figure, Goal
from bench.rounds import Result, Round, Side, take_turns
from bench.shop import TASKS, Shop, fleet_shop, plain_shop, plug, unplug
from bench.stopwatch import Stopwatch
from nxs_tasks import Fleet
from nxs_tasks.store import Wire, connect
from nxs_tasks.store.connect import Client

BENCH = "submit"
PEER = "plain"
#: Submissions in one turn.
TURN = 4 * len(TASKS)
#: The queue of all who are not placed: Celery's own default.
QUEUE_KEYS = Wire().queue_keys("celery")
#: A round without a fleet lasts as long as one with it.
NOISE_ROUND_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fleet to submit to."""

    instances: int
    slots: int
    busy: bool
    rounds: int
    goal: Goal | None = None

    @property
    def name(self) -> str:
        """As the figures call it."""
        return f"delay() at {self.instances}" + (" busy" if self.busy else "")


class Plain:
    """A publish of stock Celery."""

    def __init__(self, shop: Shop) -> None:
        self._tasks = list(shop.tasks) * (TURN // len(shop.tasks))

    def enter(self) -> None:
        """Nothing to get ready."""

    def turn(self) -> None:
        """Submit."""
        for task in self._tasks:
            task.delay(4711, "express")

    def leave(self) -> None:
        """Nothing to clear up."""


class Placed(Plain):
    """The same with placement."""

    def __init__(self, shop: Shop, fleet: Fleet, clock: Stopwatch) -> None:
        super().__init__(shop)
        self._fleet = fleet
        self._clock = clock

    def enter(self) -> None:
        """Connect the signal, let the clock run."""
        plug(self._fleet)
        self._clock.start()

    def leave(self) -> None:
        """Stop the clock, disconnect the signal."""
        self._clock.stop()
        unplug(self._fleet)


def measure(case: Case, url: str, say: Say) -> Iterator[Figure]:
    """The figures of one case. Raises `BenchError` if the tasks are not where they should be.

    The fleet has database 0 of the server and the peer database 1, so that both use the same
    queue name and each is counted by itself.
    """
    clock = Stopwatch()
    with plain_shop(f"{url}/1") as plain, fleet_shop(f"{url}/0", clock) as (shop, fleet):
        store, peer_client = fleet.runtime.store(), connect(f"{url}/1")
        store.client.flushall()
        settings = fleet.settings
        crew = Crew(store, settings, TASKS, count=case.instances, slots=case.slots, busy=case.busy)
        crew.join()
        sides = Placed(shop, fleet, clock), Plain(plain)
        shares: list[float] = []
        looks: list[int] = []

        def one(first: int) -> Round:
            crew.beat()
            before = _looks(store.client)
            done = take_turns(*sides, at_least_s=settings.view_max_age, first=first)
            looks.append(_looks(store.client) - before)
            shares.append(_own_share(case.name, done.turns * TURN, crew))
            crew.empty()
            _take_all(case.name, done.turns * TURN, peer_client)
            return done

        result = _rounds(case.name, case.rounds, one, say)
    if sum(looks) < case.rounds:
        raise BenchError(f"{case.name}: {sum(looks)} looks at the fleet in {len(looks)} rounds")
    yield from _figures(case.name, result, case.goal)
    share = median(shares) * 100
    yield Figure(bench=BENCH, metric=f"{case.name}, own queues", value=share, unit="%")


def measure_noise(rounds: int, url: str, say: Say) -> Iterator[Figure]:
    """The peer beside itself."""
    name = "plain beside plain"
    with plain_shop(f"{url}/0") as this, plain_shop(f"{url}/1") as other:
        clients = connect(f"{url}/0"), connect(f"{url}/1")
        sides: tuple[Side, Side] = Plain(this), Plain(other)

        def one(first: int) -> Round:
            done = take_turns(*sides, at_least_s=NOISE_ROUND_S, first=first)
            for client in clients:
                _take_all(name, done.turns * TURN, client)
            return done

        result = _rounds(name, rounds, one, say)
    yield from _figures(name, result, None)


def _rounds(name: str, count: int, one: Callable[[int], Round], say: Say) -> Result:
    say(f"{name}: warm-up")
    one(0)
    done = []
    for number in range(1, count + 1):
        say(f"{name}: round {number} of {count}")
        done.append(one(number % 2))
    return Result(tuple(done))


def _looks(client: Client) -> int:
    # While turns are taken, the only script that is called is the one that looks.
    stats = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def _own_share(name: str, submitted: int, crew: Crew) -> float:
    landed = crew.landed()
    if landed.own + landed.shared != submitted:
        raise BenchError(f"{name}: {submitted} tasks submitted, found {landed}")
    if landed.own < submitted <= crew.free:
        raise BenchError(f"{name}: {crew.free} slots are free, but not all are placed: {landed}")
    if landed.own > crew.free:
        raise BenchError(f"{name}: {crew.free} slots are free, but more are placed: {landed}")
    return landed.own / submitted


def _take_all(name: str, submitted: int, client: Client) -> None:
    found = sum(int(client.llen(key)) for key in QUEUE_KEYS)
    client.delete(*QUEUE_KEYS)
    if found != submitted:
        raise BenchError(f"{name}: {submitted} plain tasks submitted, found {found}")


def _figures(name: str, result: Result, goal: Goal | None) -> Iterator[Figure]:
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
    for quartile, value in zip(("q1", "q3"), result.ratio_quartiles, strict=True):
        yield Figure(bench=BENCH, metric=f"{name}, ratio {quartile}", value=value, unit="×")
