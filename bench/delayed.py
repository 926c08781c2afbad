"""The bench `delayed`: 100,000 tasks for later. What they cost a worker, and how late they run.

They become due over one minute. Beside it stock Celery, whose worker takes them into its memory and
puts each on a timer. One after the other: each has the machine for itself.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.process import started
from bench.rounds import percentile
from bench.server import own_server
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.store import Keys, Wire, connect
from nxs_tasks.store.connect import Client

BENCH = "delayed"
PEER = "celery"
TASKS = 100_000
#: They become due within this, s.
SPAN_S = 60.0
#: Taken first, to see how long all will take.
TRIAL = 5_000
#: Of that time, how much is allowed until the first is due.
MARGIN = 1.5
SLOTS = 2
LONG_S = 900.0
DAY_S = 86_400.0
#: Messages written at a time.
BATCH = 1000
MB = 1024 * 1024
LATE = "late"
QUEUE = Wire().queue_keys("celery")[0]
#: What a worker keeps of 100,000 tasks that are not due: nothing that grows with them.
GOAL = Goal("value", "<=", 10.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side showed."""

    growth_mb: float
    late_s: list[float]


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    ours = _measure("with a fleet", say, fleet=True)
    peer = _measure(PEER, say, fleet=False)
    yield _figure("memory for 100,000 tasks", "MB", ours.growth_mb, peer.growth_mb, GOAL)
    for share in (50, 99):
        late, peer_late = (percentile(side.late_s, share) * 1000 for side in (ours, peer))
        yield _figure(f"late by, p{share}", "ms", late, peer_late)
    early, peer_early = (sum(s < 0 for s in side.late_s) for side in (ours, peer))
    yield _figure("early", "tasks", early, peer_early)


def _figure(metric: str, unit: str, value: float, peer: float, goal: Goal | None = None) -> Figure:
    ratio = value / peer if peer else None
    return Figure(
        bench=BENCH,
        metric=metric,
        value=value,
        unit=unit,
        peer=PEER,
        peer_value=peer,
        ratio=ratio,
        goal=goal,
    )


def _measure(name: str, say: Say, *, fleet: bool) -> Measured:
    with own_server() as url, connect(url) as client, _worker(url, fleet=fleet) as process:

        def away() -> int:
            # What is in nobody's queue any more, but not done: with the worker, or on a shelf.
            shelf = client.hlen(Keys("default").shelf("delayed"))
            return int(client.hlen("unacked")) + int(shelf)

        _until(lambda: _send(client, [SYSTEM.now()]) and _drained(client), "its first task")
        say(f"{name}: {TRIAL:,} tasks as a trial")
        began = SYSTEM.monotonic()
        _send(client, [SYSTEM.now() + DAY_S] * TRIAL)
        _until(lambda: away() == TRIAL, "the trial to be taken")
        needed_s = (SYSTEM.monotonic() - began) * TASKS / TRIAL * MARGIN
        before = process.memory_info().rss
        say(f"{name}: {TASKS:,} tasks, the first due in {needed_s:.0f} s")
        first = SYSTEM.now() + needed_s
        _send(client, [first + random.uniform(0.0, SPAN_S) for _ in range(TASKS)])
        _until(lambda: away() == TRIAL + TASKS or SYSTEM.now() > first, "all to be taken")
        if SYSTEM.now() > first:
            raise BenchError(f"{name}: the first was due before all were taken")
        growth = (process.memory_info().rss - before) / MB
        say(f"{name}: waiting until all have run")
        done = int(client.llen(LATE)) + TASKS
        _until(lambda: int(client.llen(LATE)) >= done, "all to run")
        return Measured(growth, [float(text) for text in client.lrange(LATE, -TASKS, -1)])


def _until(condition: Callable[[], bool], what: str) -> None:
    if not wait_until(condition, LONG_S, poll_s=0.2):
        raise BenchError(f"not within {LONG_S:.0f} s: {what}")


def _drained(client: Client) -> bool:
    return int(client.llen(QUEUE)) == 0 and int(client.llen(LATE)) > 0


def _send(client: Client, due: list[float]) -> bool:
    for start in range(0, len(due), BATCH):
        client.lpush(QUEUE, *(_message(start + n, at) for n, at in enumerate(due[start:][:BATCH])))
    return True


def _message(number: int, due: float) -> str:
    """What a stock producer would have sent."""
    body = json.dumps([[due], {}, {}])
    id_ = f"{number}-{due!r}"
    eta = datetime.fromtimestamp(due, UTC).isoformat()
    headers = {"id": id_, "task": "due.note", "lang": "py", "eta": eta, "retries": 0}
    headers |= {"argsrepr": f"({due!r},)", "kwargsrepr": "{}", "timelimit": [None, None]}
    properties = {"correlation_id": id_, "delivery_mode": 2, "priority": 0, "delivery_tag": id_}
    properties |= {"delivery_info": {"exchange": "", "routing_key": "celery"}}
    return json.dumps(
        {
            "body": b64encode(body.encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {**headers, "root_id": id_},
            "properties": {**properties, "body_encoding": "base64"},
        }
    )


@contextmanager
def _worker(url: str, *, fleet: bool) -> Iterator[psutil.Process]:
    """A worker's main process. Ended at once: what it still holds are the tasks of the trial."""
    with started("bench.due", "bench@due", SLOTS, url, fleet=fleet) as worker:
        try:
            yield psutil.Process(worker.process.pid)
        finally:
            worker.kill()
