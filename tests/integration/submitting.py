"""Processes for tests of the spool: one that submits and tells each id, one that only drains.

`python -m tests.integration.submitting submit URL STATE_DIR COUNT`
`python -m tests.integration.submitting drain URL STATE_DIR ROWS_EACH`
`python -m tests.integration.submitting unique URL STATE_DIR KEY PROCESSES THREADS DEADLINE_S`
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

from nxs_tasks import Fleet
from nxs_tasks.clock import wait_until
from nxs_tasks.errors import AlreadySubmitted
from nxs_tasks.submission import batches
from nxs_tasks.submission import replay as replaying


def make(url: str, state: str, deadline_s: float = 0.5) -> Fleet:
    app = Celery("shop", broker=url, backend=url, set_as_current=False)
    return Fleet(app, state_dir=state, placement_sample=0.0, submit_deadline=deadline_s)


def submit(fleet: Fleet, count: str) -> None:
    for n in range(int(count)):
        result = fleet.app.send_task("shop.add", (n, n), ignore_result=True)
        print(result.id, flush=True)
    print("waits", flush=True)
    sys.stdin.readline()


def drain(fleet: Fleet, rows_each: str) -> None:
    """Until nothing waits, in small batches, and with no patience for a drainer that has died."""
    setattr(replaying, "MOST_ROWS", int(rows_each))  # noqa: B010
    batches.LEASE_S = 0.2
    outbox = fleet.outbox

    def done() -> bool:
        outbox.drain()
        return not outbox.replay().batches.waiting()

    wait_until(done, 60.0, 0.05)


def unique(fleet: Fleet, key: str, processes: str, threads: str) -> None:
    """All at once, in forks of a process that has used the fleet before."""
    fleet.app.send_task("shop.add", (0, 0), queue="elsewhere")
    print("ready", flush=True)
    sys.stdin.readline()
    pids = []
    for _ in range(int(processes)):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _one_key(fleet, key, int(threads))
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    sys.exit(max(codes))


def _one_key(fleet: Fleet, key: str, threads: int) -> None:
    start = threading.Barrier(threads)

    def one() -> None:
        start.wait()
        try:
            result: Any = fleet.app.send_task("shop.add", (1, 2), headers={"nxs_unique": key})
            line = f"mine {result.id}\n"
        except AlreadySubmitted as error:
            line = f"theirs {error.task_id}\n"
        os.write(sys.stdout.fileno(), line.encode())

    running = [threading.Thread(target=one) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


if __name__ == "__main__":
    role, url_, state_, *rest = sys.argv[1:]
    if role == "unique":
        unique(make(url_, state_, float(rest.pop())), *rest)
    else:
        roles: dict[str, Callable[..., None]] = {"submit": submit, "drain": drain}
        roles[role](make(url_, state_), *rest)
