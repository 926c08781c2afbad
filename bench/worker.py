"""The bench `worker`: how many tasks that do nothing a worker takes, runs and acknowledges.

Beside it stock Celery with the same durability (late acknowledgements, prefetch off). Two workers
run side by side, each on a server of its own, and take turns: the one waits while the other works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.process import started
from bench.rounds import Result, Round, take_turns
from bench.server import own_server
from nxs_tasks.clock import wait_until
from nxs_tasks.store import Wire, connect

BENCH = "worker"
PEER = "celery"
#: Tasks in one turn, and turns in one round.
TURN = 1000
ROUND_S = 3.0
ROUNDS = 9
SLOTS = 2
PATIENCE_S = 60.0
POOLS = ("prefork", "threads")
GOAL = Goal("ratio", ">=", 0.95)


class Working:
    """One side: a running worker, and its server to send to and to look at."""

    def __init__(self, url: str, messages: list[str]) -> None:
        self._client = connect(url)
        self._messages = messages
        self._queue = Wire().queue_keys("celery")[0]

    def enter(self) -> None:
        """Nothing to get ready."""

    def turn(self) -> None:
        """Send, and wait until all is acknowledged."""
        self._client.lpush(self._queue, *self._messages)
        if not wait_until(self._done, PATIENCE_S, poll_s=0.002):
            raise BenchError(f"not done within {PATIENCE_S:.0f} s")

    def leave(self) -> None:
        """Nothing to clear up."""

    def _done(self) -> bool:
        # Waiting and held together, at one moment: nothing is counted as done on its way.
        pipe = self._client.pipeline(transaction=True)
        pipe.llen(self._queue)
        pipe.hlen("unacked")
        pipe.hlen("nxs:{default}:inflight:bench@ours:1")
        return not any(pipe.execute())


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    with own_server() as url:
        messages = _messages(url)
    for pool in POOLS:
        yield from _measure(pool, messages, say)


def _measure(pool: str, messages: list[str], say: Say) -> Iterator[Figure]:
    say(f"{pool}: starting two workers")
    with ExitStack() as stack:
        ours_url = stack.enter_context(own_server())
        peer_url = stack.enter_context(own_server())
        stack.enter_context(_worker("bench@ours", pool, ours_url, fleet=True))
        stack.enter_context(_worker("bench@peer", pool, peer_url, fleet=False))
        ours, peer = Working(ours_url, messages), Working(peer_url, messages)
        take_turns(ours, peer, at_least_s=1.0)
        done: list[Round] = []
        for number in range(1, ROUNDS + 1):
            say(f"{pool}: round {number} of {ROUNDS}")
            done.append(take_turns(ours, peer, at_least_s=ROUND_S, first=number % 2))
    yield from _figures(pool, Result(tuple(done)))


def _figures(pool: str, result: Result) -> Iterator[Figure]:
    low, high = result.ratio_quartiles
    yield Figure(
        bench=BENCH,
        metric=f"no-op tasks, {pool}",
        value=TURN / result.per_turn(lambda r: r.ours_s),
        unit="tasks/s",
        peer=PEER,
        peer_value=TURN / result.per_turn(lambda r: r.peer_s),
        ratio=1 / result.ratio,
        goal=GOAL,
    )
    for name, ratio in (("q1", 1 / high), ("q3", 1 / low)):
        yield Figure(bench=BENCH, metric=f"{pool}, ratio {name}", value=ratio, unit="×")


def _messages(url: str) -> list[str]:
    """What a stock producer would have sent."""
    os.environ["BENCH_BROKER"] = url
    try:
        from bench.noop import app, nothing
    finally:
        del os.environ["BENCH_BROKER"]
    for _ in range(TURN):
        nothing.delay()
    app.close()
    with connect(url) as client:
        key = Wire().queue_keys("celery")[0]
        found = [str(message) for message in client.lrange(key, 0, -1)]
        client.delete(key)
    if len(found) != TURN:
        raise BenchError(f"{TURN} tasks were sent, {len(found)} are there")
    return found


@contextmanager
def _worker(name: str, pool: str, url: str, *, fleet: bool) -> Iterator[None]:
    with started("bench.noop", name, SLOTS, url, "-P", pool, fleet=fleet) as worker:
        try:
            yield
        finally:
            worker.end()
