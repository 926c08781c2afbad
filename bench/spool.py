"""The bench `spool`: submissions while the broker is frozen, and what becomes of them after it.

Four processes submit 10,000 tasks, spread over the minute for which the server is stopped (SIGSTOP:
it accepts connections and never answers). Each begins with a task that is accepted. When the server
goes on, it also carries out what lay in its sockets when its senders had given up. Then every task
must lie in the queue once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from celery import Celery

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.rounds import percentile
from bench.server import own_server
from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.errors import SubmissionRejected
from nxs_tasks.store import FleetStore, Keys, Wire, connect

BENCH = "spool"
PROCESSES = 4
SUBMISSIONS = 10_000
FROZEN_S = 60.0
#: Given up if the spool is not empty so long after the thaw, s.
DRAINED_S = 300.0
READY = "ready"

ANSWERED = Goal("value", "<=", 2.0)
NONE = Goal("value", "<=", 0.0)
DRAINED = Goal("value", "<=", 60.0)


def run(say: Say) -> Iterator[Figure]:
    """All figures, on a server of its own."""
    with own_server() as base, tempfile.TemporaryDirectory() as state:
        url = f"{base}/0"
        client = connect(url, timeout_s=DRAINED_S)
        store = FleetStore(client, Keys("default"), Wire(), "celery", url)
        with _submitters(url, state) as submitters:
            for submitter in submitters:
                _expect(submitter, READY)
            pid = int(store.check_server()["process_id"])
            say(f"{SUBMISSIONS} submissions while the server is frozen for {FROZEN_S:.0f} s")
            told = _while_frozen(pid, submitters)
            thawed = SYSTEM.monotonic()
            say("the spool is sent")
            ids = [id_ for part in told for id_ in part["ids"]]
            drained = wait_until(lambda: len(_sent(store)) >= len(ids), DRAINED_S, 0.2)
            drained_s = SYSTEM.monotonic() - thawed
            for submitter in submitters:
                _tell(submitter, "end")
            codes = [submitter.wait(DRAINED_S) for submitter in submitters]
        if any(codes):
            raise BenchError(f"submitters ended with {codes}")
        yield from _figures(told, _sent(store), drained_s if drained else DRAINED_S)


def _figures(
    told: Sequence[dict[str, Any]], sent: Sequence[str], drained_s: float
) -> Iterator[Figure]:
    seconds = sorted(s for part in told for s in part["seconds"])
    ids, found = {id_ for part in told for id_ in part["ids"]}, Counter(sent)
    rejected = sum(part["rejected"] for part in told)
    lost, doubled = len(ids - found.keys()), sum(n - 1 for n in found.values())

    def figure(metric: str, value: float, unit: str, goal: Goal | None = None) -> Figure:
        return Figure(bench=BENCH, metric=metric, value=value, unit=unit, goal=goal)

    yield figure("submissions", float(len(seconds)), "tasks")
    yield figure("one call, median", percentile(seconds, 50) * 1000, "ms")
    yield figure("one call, p99", percentile(seconds, 99), "s", ANSWERED)
    yield figure("one call, longest", seconds[-1], "s")
    yield figure("rejected", float(rejected), "tasks", NONE)
    yield figure("lost", float(lost), "tasks", NONE)
    yield figure("doubled", float(doubled), "tasks", NONE)
    yield figure("spool empty after the thaw", drained_s, "s", DRAINED)


def _while_frozen(pid: int, submitters: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    os.kill(pid, signal.SIGSTOP)
    try:
        for submitter in submitters:
            _tell(submitter, "go")
        return [json.loads(_line(submitter)) for submitter in submitters]
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _submitters(url: str, state: str) -> Iterator[list[subprocess.Popen[str]]]:
    argv = [sys.executable, "-m", "bench.spool", url, state, str(SUBMISSIONS // PROCESSES)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(argv, stderr=subprocess.DEVNULL, **pipes) for _ in range(PROCESSES)]
    try:
        yield started
    finally:
        for submitter in started:
            submitter.kill()
            submitter.wait()
            for pipe in (submitter.stdin, submitter.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def _line(submitter: subprocess.Popen[str]) -> str:
    assert submitter.stdout is not None
    line = submitter.stdout.readline()
    if not line:
        raise BenchError("a submitter has ended")
    return line.strip()


def _expect(submitter: subprocess.Popen[str], text: str) -> None:
    if (said := _line(submitter)) != text:
        raise BenchError(f"a submitter says {said!r}")


def _tell(submitter: subprocess.Popen[str], text: str) -> None:
    assert submitter.stdin is not None
    submitter.stdin.write(f"{text}\n")
    submitter.stdin.flush()


def _sent(store: FleetStore) -> list[str]:
    raws: Any = store.client.lrange("celery", 0, -1)
    return [json.loads(raw)["headers"]["id"] for raw in raws]


def submit(url: str, state: str, count: int) -> None:
    """What one process does: `count` submissions spread over the time of the freeze."""
    app = Celery("shop", broker=url, backend=url, set_as_current=False)
    Fleet(app, state_dir=state, placement_sample=0.0)
    ids, seconds, rejected = [app.send_task("shop.pay", ignore_result=True).id], [], 0
    print(READY, flush=True)
    sys.stdin.readline()
    start = SYSTEM.monotonic()
    for n in range(count):
        due = start + n * FROZEN_S / count
        wait_until(lambda due=due: SYSTEM.monotonic() >= due, FROZEN_S, 0.001)  # type: ignore[misc]
        before = SYSTEM.monotonic()
        try:
            ids.append(app.send_task("shop.pay", (n,), ignore_result=True).id)
        except SubmissionRejected:
            rejected += 1
        seconds.append(SYSTEM.monotonic() - before)
    print(json.dumps({"ids": ids, "seconds": seconds, "rejected": rejected}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    submit(sys.argv[1], sys.argv[2], int(sys.argv[3]))
