"""Consumers that are killed at a random moment, one after the other: `URL KIND KILLS QUEUE`.

KIND is `fleet` (the channel of a fleet, each process with an epoch of its own) or `stock` (kombu's
own). A child writes down what it has done before it acknowledges it. Prints how many were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any, NoReturn

import kombu

from nxs_tasks.clock import wait_until
from nxs_tasks.transport.redis import TENURE_OPTION, Connection
from nxs_tasks.transport.tenure import Tenure
from tests.conftest import add_instance, new_store
from tests.integration.claiming import a_queue

DONE = "done"
#: A child lives at most so long after its first message, s: some dozens of messages.
LIFE_S = 0.01


def consume(url: str, kind: str, queue: str, ready: int) -> NoReturn:
    """Take, do, acknowledge, for ever."""
    store = new_store(url)
    if kind == "fleet":
        tenure = Tenure(store, "w1@t", add_instance(store, "w1@t"))
        connection = Connection(url, transport_options={TENURE_OPTION: tenure})
    else:
        connection = kombu.Connection(url)

    def do(message: Any) -> None:
        store.client.rpush(DONE, message.headers["id"])
        message.ack()
        os.write(ready, b".")

    kombu.Consumer(connection.channel(), [a_queue(queue)], on_message=do).consume()
    while True:
        connection.drain_events()


def one_life(url: str, kind: str, queue: str) -> None:
    """Fork a consumer, let it get to work, and kill it."""
    heard, ready = os.pipe()
    os.set_blocking(ready, False)
    child = os.fork()
    if not child:
        os.close(heard)
        consume(url, kind, queue, ready)
    os.close(ready)
    at_work = os.read(heard, 1)
    wait_until(lambda: False, random.uniform(0.0, LIFE_S), poll_s=0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(heard)
    if not at_work or os.WTERMSIG(status) != signal.SIGKILL:
        raise SystemExit(f"a {kind} consumer ended by itself")


def main(url: str, kind: str, kills: str, queue: str = "celery") -> None:
    for _ in range(int(kills)):
        one_life(url, kind, queue)
    print(kills)


if __name__ == "__main__":
    main(*sys.argv[1:])
