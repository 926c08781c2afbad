"""The bench `submit_many`: tasks a second of `submit_many()`, and of `submit()` one by one.

Every pair takes turns on one server, each side with a database of its own; what has arrived is
counted after each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Any

from bench.catalog import BenchError, Say
from bench.crew import Crew
from bench.figure import Figure, Goal
from bench.peers import HOW, ORDER, all_peers, require_all
from bench.rounds import Result, Round, collected, take_turns
from bench.server import own_server
from bench.shop import Shop, fleet_shop, plain_shop, plug, unplug
from bench.stopwatch import Stopwatch
from nxs_tasks import Fleet
from nxs_tasks.model.decision import Placement
from nxs_tasks.store import connect
from nxs_tasks.submission.destination import placed_json
from nxs_tasks.submission.encoder import NULL, Encoder, new_ids

BENCH = "submit_many"
#: Tasks in one turn.
MANY = 5000
FEW = 200
ROUNDS = 9
MANY_ROUND_S = 0.5
FEW_ROUND_S = 0.3
#: Messages in one pipeline, as kombu's own batch has them.
PIPELINE = 1000
#: Of a message of the tiny task, about, in characters.
MESSAGE_LENGTH = 1000
ENCODED = 20_000
INSTANCES = 3
#: So many slots that every task is placed.
PLENTY = 10_000_000
QUEUE = "celery"
OURS_DB, STOCK_DB, PEERS_DB = 0, 1, 2

Send = Callable[[int], None]
#: No parent, no times, and whoever sends.
REST = (NULL, NULL, NULL, NULL, '"gen1@a"', '"6f1c0d0e-0b0c-4c7e-8a52-3d6d1a2b3c4d"')

MANY_PER_S = Goal("value", ">=", 50_000.0)
TIMES_DELAY = Goal("ratio", ">=", 4.0)
AHEAD = Goal("ratio", ">=", 1.0)
ENCODE_US = Goal("value", "<=", 8.0)


class Sending:
    """A side that sends, and counts what has arrived."""

    def __init__(self, url: str, send: Send, count: int, key: str = QUEUE) -> None:
        self._client = connect(url)
        self._send = send
        self._count = count
        self._key = key
        self._sent = 0

    def enter(self) -> None:
        """Nothing to get ready."""

    def turn(self) -> None:
        """Send."""
        self._send(self._count)

    def leave(self) -> None:
        """Note it."""
        self._sent += self._count

    def settle(self, name: str) -> None:
        """Empty the database. Raises `BenchError` if not all has arrived."""
        sent, self._sent = self._sent, 0
        found = self._arrived()
        self._client.flushdb()
        if found != sent:
            raise BenchError(f"{name}: {sent} tasks were sent, {found} are in {self._key}")

    def _arrived(self) -> int:
        return int(self._client.llen(self._key))


class Ours(Sending):
    """A fleet: its signal is connected and its clock runs while it is its turn."""

    def __init__(self, url: str, send: Send, count: int, fleet: Fleet, clock: Stopwatch) -> None:
        super().__init__(url, send, count)
        self._fleet = fleet
        self._clock = clock

    def enter(self) -> None:
        """Connect the signal, let the clock run."""
        plug(self._fleet)
        self._clock.start()

    def leave(self) -> None:
        """Stop the clock, disconnect the signal."""
        super().leave()
        self._clock.stop()
        unplug(self._fleet)


class Crewed(Ours):
    """The same with instances that have room for all."""

    def man(self) -> None:
        """Have the instances join."""
        store, settings = self._fleet.runtime.store(), self._fleet.settings
        tasks = [str(name) for name in self._fleet.app.tasks]
        self._crew = Crew(store, settings, tasks, count=INSTANCES, slots=PLENTY, busy=False)
        self._crew.join()

    def _arrived(self) -> int:
        landed = self._crew.landed()
        if landed.shared:
            raise BenchError(f"not all are placed: {landed}")
        return landed.own


@dataclass(frozen=True, slots=True)
class Hall:
    """Where the sides meet."""

    url: str
    fleet: Fleet
    clock: Stopwatch
    task: Any  # of the fleet
    stock: Shop
    say: Say

    def ours(self, send: Send, count: int, kind: type[Ours] = Ours) -> Ours:
        """Our side."""
        return kind(f"{self.url}/{OURS_DB}", send, count, self.fleet, self.clock)

    def peer(self, send: Send, count: int) -> Sending:
        """A side that sends to where stock Celery does."""
        return Sending(f"{self.url}/{STOCK_DB}", send, count)

    def compare(self, name: str, ours: Ours, peer: Sending, at_least_s: float) -> Result:
        """Rounds of both."""
        done: list[Round] = []
        for number in range(ROUNDS + 1):
            self.say(f"{name}: round {number} of {ROUNDS}" if number else f"{name}: warm-up")
            if isinstance(ours, Crewed):
                ours.man()
            # What the fleet saw in the round before is gone.
            self.clock.advance(self.fleet.settings.view_max_age)
            done.append(take_turns(ours, peer, at_least_s=at_least_s, first=number % 2))
            ours.settle(name)
            peer.settle(name)
        return Result(tuple(done[1:]))


def run(say: Say) -> Iterator[Figure]:
    """All figures. Raises `BenchError` if a peer is not installed."""
    require_all()
    clock = Stopwatch()
    with (
        own_server() as url,
        plain_shop(f"{url}/{STOCK_DB}") as stock,
        fleet_shop(f"{url}/{OURS_DB}", clock) as (shop, fleet),
    ):
        task = fleet.app.tasks[shop.tasks[0].name]
        hall = Hall(url, fleet, clock, task, stock, say)
        yield _encoding(hall)
        yield from _many(hall)
        yield from _one_by_one(hall)


def _encoding(hall: Hall) -> Figure:
    """The processor's time for a message, ids and placement included."""
    encoder = Encoder(
        hall.fleet.app, hall.task.name, {"ignore_result": True}, placed=True, expiring=False
    )
    placement = Placement(task=hall.task.name, instance="w1@a", score=0.75, reason="the best")

    def encode() -> None:
        args = ORDER, HOW
        for id_, tag in zip(new_ids(ENCODED), new_ids(ENCODED), strict=True):
            own, placed = f'"{id_}"', placed_json(placement, 1.5)
            encoder.text(args, None, own, f'"{tag}"', '"celery"', placed, own, *REST)

    encode()
    spans = []
    for number in range(1, ROUNDS + 1):
        hall.say(f"encoding: round {number} of {ROUNDS}")
        with collected():
            start = process_time()
            encode()
            spans.append(process_time() - start)
    value = median(spans) / ENCODED * 1e6
    return Figure(bench=BENCH, metric="encode one", value=value, unit="µs", goal=ENCODE_US)


def _many(hall: Hall) -> Iterator[Figure]:
    def many(count: int) -> None:
        hall.fleet.submit_many(hall.task, [(ORDER, HOW)] * count)

    def kombu(count: int) -> None:
        task, app = hall.stock.tasks[0], hall.stock.app
        with app.producer_or_acquire() as producer, producer.batch(PIPELINE):
            for _ in range(count):
                task.apply_async((ORDER, HOW), producer=producer)

    client = connect(f"{hall.url}/{STOCK_DB}")
    ready = [f"{'x' * MESSAGE_LENGTH}{n}" for n in range(MANY)]

    def piped(count: int) -> None:
        for start in range(0, count, PIPELINE):
            pipe = client.pipeline(transaction=False)
            for message in ready[start : start + PIPELINE]:
                pipe.lpush(QUEUE, message)
            pipe.execute()

    for metric, kind, peer, send, goal in (
        ("many", Ours, "kombu batch", kombu, MANY_PER_S),
        ("many", Ours, "raw LPUSH", piped, None),
        ("many, all placed", Crewed, "raw LPUSH", piped, None),
    ):
        ours, other = hall.ours(many, MANY, kind), hall.peer(send, MANY)
        result = hall.compare(f"{metric} and {peer}", ours, other, MANY_ROUND_S)
        yield _figure(metric, peer, MANY, result, goal)


def _one_by_one(hall: Hall) -> Iterator[Figure]:
    def one(count: int) -> None:
        submit, task = hall.fleet.submit, hall.task
        for _ in range(count):
            submit(task, (ORDER, HOW))

    def delay(count: int) -> None:
        task = hall.stock.tasks[0]
        for _ in range(count):
            task.delay(ORDER, HOW)

    ours, stock = hall.ours(one, FEW), hall.peer(delay, FEW)
    result = hall.compare("submit() and delay()", ours, stock, FEW_ROUND_S)
    yield _figure("one by one", "delay()", FEW, result, TIMES_DELAY)
    with all_peers(hall.url, PEERS_DB) as peers:
        for number, peer in enumerate(peers, PEERS_DB):
            side = Sending(f"{hall.url}/{number}", peer.send, FEW, peer.key)
            result = hall.compare(f"submit() and {peer.name}", ours, side, FEW_ROUND_S)
            yield _figure("one by one", peer.name, FEW, result, AHEAD)


def _figure(metric: str, peer: str, count: int, result: Result, goal: Goal | None) -> Figure:
    return Figure(
        bench=BENCH,
        metric=metric,
        value=count / result.per_turn(lambda r: r.ours_s),
        unit="tasks/s",
        peer=peer,
        peer_value=count / result.per_turn(lambda r: r.peer_s),
        ratio=1 / result.ratio,
        goal=goal,
    )
