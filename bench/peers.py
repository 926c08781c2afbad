"""Other task queues that keep their tasks in Redis, each sending the same tiny task one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bench.catalog import BenchError

#: The module and the package that brings it.
MODULES = {
    "dramatiq": "dramatiq[redis]",
    "huey": "huey",
    "rq": "rq",
    "saq": "saq",
    "taskiq_redis": "taskiq-redis",
}
ORDER, HOW = 4711, "express"


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them: how it sends so many tasks, and the list where they are then."""

    name: str
    send: Callable[[int], None]
    key: str


def require_all() -> None:
    """Raises `BenchError` with what is missing."""
    missing = sorted(package for module, package in MODULES.items() if find_spec(module) is None)
    if missing:
        raise BenchError(
            f"not installed: {', '.join(missing)}. `make bench NAME=submit_many` installs them, "
            "and so does pip install 'nxs-tasks[bench]'"
        )


@contextmanager
def all_peers(url: str, first_db: int) -> Iterator[list[Peer]]:
    """Each with a database of its own, from `first_db` on."""
    loop = asyncio.new_event_loop()
    urls = [f"{url}/{first_db + n}" for n in range(len(MODULES))]
    try:
        yield [
            _dramatiq(urls[0]),
            _huey(urls[1]),
            _rq(urls[2]),
            _saq(urls[3], loop),
            _taskiq(urls[4], loop),
        ]
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def work(order: int, how: str) -> None:
    """Never runs: nobody consumes."""


def _dramatiq(url: str) -> Peer:
    dramatiq: Any = import_module("dramatiq")
    broker = import_module("dramatiq.brokers.redis").RedisBroker(url=url)
    actor = dramatiq.actor(work, broker=broker, actor_name="work")

    def send(count: int) -> None:
        for _ in range(count):
            actor.send(ORDER, HOW)

    return Peer("dramatiq", send, "dramatiq:default")


def _huey(url: str) -> Peer:
    queue = import_module("huey").RedisHuey("bench", url=url)
    task = queue.task()(work)

    def send(count: int) -> None:
        for _ in range(count):
            task(ORDER, HOW)

    return Peer("huey", send, "huey.redis.bench")


def _rq(url: str) -> Peer:
    redis: Any = import_module("redis")
    queue = import_module("rq").Queue(connection=redis.Redis.from_url(url))

    def send(count: int) -> None:
        for _ in range(count):
            queue.enqueue(work, ORDER, HOW)

    return Peer("rq", send, "rq:queue:default")


def _saq(url: str, loop: asyncio.AbstractEventLoop) -> Peer:
    queue = import_module("saq").Queue.from_url(url)

    async def send(count: int) -> None:
        for _ in range(count):
            await queue.enqueue("work", order=ORDER, how=HOW)

    return Peer("saq", lambda count: loop.run_until_complete(send(count)), "saq:default:queued")


def _taskiq(url: str, loop: asyncio.AbstractEventLoop) -> Peer:
    broker = import_module("taskiq_redis").ListQueueBroker(url)

    async def taskiq_work(order: int, how: str) -> None:
        """The same."""

    task = broker.task(task_name="work")(taskiq_work)
    loop.run_until_complete(broker.startup())

    async def send(count: int) -> None:
        for _ in range(count):
            await task.kiq(ORDER, HOW)

    return Peer("taskiq", lambda count: loop.run_until_complete(send(count)), "taskiq")
