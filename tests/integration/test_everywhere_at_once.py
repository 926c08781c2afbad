"""The same promise with real concurrency: takers that die, rescuers, and a publisher at once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import Stale
from nxs_tasks.model.shelf import DELAYED
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.rescue import rescue
from nxs_tasks.store.homes import homes
from nxs_tasks.store.inflight import Inflight
from nxs_tasks.store.message import read
from tests.conftest import new_store
from tests.integration.holding import DISPLACED, TAKEN, Process, an_entry
from tests.integration.messages import OWN, SHARED, message

MESSAGES = 1500
#: Tasks that a taker runs at a time.
AT_A_TIME = 10
#: Longest wait for all of it to end. A deadline, not an expectation.
PATIENCE_S = 120.0


class Crowd:
    """Threads that each do one thing again and again, until told to stop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.over = threading.Event()
        self.ended: Counter[str] = Counter()
        self.refused = self.deaths = self.rescues = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=16)
        self._running: list[Future[None]] = []

    def start(self, act: Callable[[random.Random], Iterator[None]], seed: int) -> None:
        def run() -> None:
            for _ in act(random.Random(seed)):
                if self.over.is_set():
                    return

        self._running.append(self._pool.submit(run))

    def has_failed(self) -> bool:
        return any(one.done() and one.exception() for one in self._running)

    def stop(self) -> None:
        """End all; raises what one of them has raised."""
        self.over.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()

    def taker(self, name: str) -> Callable[[random.Random], Iterator[None]]:
        """Takes, and ends it a few turns later; sometimes it dies, or does not know that it has."""

        def act(chance: random.Random) -> Iterator[None]:
            store = new_store(self.url)
            process = Process(store, name, state=State.JOINING)
            running: list[tuple[Process, str, str]] = []
            while True:
                yield
                answer = process.ask()
                if answer[0] == TAKEN:
                    task = process, process.last_token, read(answer[2]).task_id
                    fate = chance.choice(("death", "replaced", "delayed", *["runs"] * 7))
                    if fate == "delayed":
                        self.delay(process, answer[2])
                    else:
                        running.append(task)
                    if fate == "death":
                        running.clear()
                    if fate in {"death", "replaced"}:
                        process = self.anew(process)
                elif answer[0] == DISPLACED:
                    process = self.anew(process)
                if len(running) > AT_A_TIME or (running and chance.random() < 0.1):
                    self.end(*running.pop(0))

        return act

    def delay(self, process: Process, raw: str) -> None:
        """For a moment."""
        token, at = process.last_token, process.store.now() + 0.01
        entry = an_entry(token, raw, at=at, list=SHARED)
        process.inflight.shelve(process.instance, process.epoch, token, DELAYED, entry)

    def anew(self, process: Process) -> Process:
        with self._lock:
            self.deaths += 1
        return Process(process.store, process.instance, state=State.JOINING)

    def end(self, process: Process, token: str, task_id: str) -> None:
        accepted = process.acknowledge(token)
        with self._lock:
            self.ended[task_id] += accepted
            self.refused += not accepted

    def rescuer(self, chance: random.Random) -> Iterator[None]:
        """A control worker; it sometimes takes the living for dead."""
        store = new_store(self.url)
        while True:
            yield
            if chance.random() < 0.05:
                name = f"w{chance.randrange(4)}"
                store.client.hset(store.keys.instance(name), "state", State.GONE)
            for decision in rescue(store.snapshot(full=True)):
                with suppress(Stale):
                    back = Inflight(store).give_back(
                        decision.instance,
                        decision.epoch,
                        homes(store),
                        lost_at=store.now(),
                        lost_holders=MESSAGES,
                        dead=True,
                    )
                    with self._lock:
                        self.rescues += back.to_queues

    def publisher(self, chance: random.Random) -> Iterator[None]:
        """Numbers its writes, and sends some of them again."""
        store = new_store(self.url)
        for n in range(1, MESSAGES + 1):
            keys = [store.keys.producer("p"), chance.choice((SHARED, OWN))]
            for _ in range(chance.choice((1, 1, 2))):
                store.call("publish", keys, [n, 600, 1, message(f"m{n}")])
            yield


@pytest.mark.parametrize("seed", range(2))
def test_with_everybody_at_once_each_message_is_ended_once(url: str, seed: int) -> None:
    crowd = Crowd(url)
    for n in range(4):
        crowd.start(crowd.taker(f"w{n}"), seed * 100 + n)
    for n in range(2):
        crowd.start(crowd.rescuer, seed * 100 + 10 + n)
    crowd.start(crowd.publisher, seed * 100 + 20)
    try:
        wait_until(lambda: len(+crowd.ended) == MESSAGES or crowd.has_failed(), PATIENCE_S)
    finally:
        crowd.stop()
    assert +crowd.ended == Counter(f"m{n}" for n in range(1, MESSAGES + 1))
    assert crowd.deaths
    assert crowd.rescues
    assert crowd.refused, "no task ended in a process that had lost it"
    store = new_store(url)
    assert [h for h in store.holders() if h.held] == []
