"""An app whose tasks write down that they run, in Redis, by the server's clock.

Its tasks do what makes trouble: they die, hang, give up, come back. What is written is the test's
own account, independent of results and of what NXS says.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.signals import task_failure
from celery.worker.control import control_command
from celery.worker.request import Request

from nxs_tasks import Fleet
from nxs_tasks.store import connect
from nxs_tasks.worker import strays

URL = os.environ["SHOP_BROKER"]
#: Where the account is kept; not by way of what a test has put between the worker and its broker.
LEDGER_URL = os.environ.get("LEDGER_URL", URL)
#: List: for each start or end of a task a JSON list: its id, what, the server's time (s), the pid.
RAN = "ran"

app = Celery("ledger", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_proc_alive_timeout=30.0,
    worker_lost_wait=1.0,
    **json.loads(os.environ.get("LEDGER_CONF", "{}")),
)
fleet = Fleet(app)
#: So that a test need not wait for what is a matter of seconds.
strays.APART_S = float(os.environ.get("LEDGER_APART_S", strays.APART_S))
_client: tuple[int, Any] = (0, None)


def note(task: Any, what: str) -> None:
    """Write down that a task has come so far."""
    global _client
    if _client[0] != os.getpid():
        _client = (os.getpid(), connect(LEDGER_URL))
    client = _client[1]
    seconds, microseconds = client.time()
    at = seconds + microseconds / 1e6
    client.rpush(RAN, json.dumps([task.request.id, what, at, os.getpid()]))


@app.task(name="ledger.run", bind=True)
def run(self: Any, seconds: float = 0.0) -> str:
    note(self, "start")
    if seconds:
        time.sleep(seconds)  # noqa: TID251 - what a task of a user would do
    note(self, "end")
    return "done"


@app.task(name="ledger.until", bind=True)
def until(self: Any, key: str) -> str:
    """Work until somebody sets a key."""
    note(self, "start")
    while not _client[1].exists(key):
        time.sleep(0.02)  # noqa: TID251
    note(self, "end")
    return "done"


@app.task(name="ledger.again", bind=True, max_retries=None)
def again(self: Any, times: int, countdown: float) -> int:
    """Retried so often, with that countdown."""
    note(self, f"try {self.request.retries}")
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@app.task(name="ledger.die", bind=True)
def die(self: Any) -> None:
    """Kill the process that runs it, as the kernel does when memory is short."""
    note(self, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="ledger.leave", bind=True)
def leave(self: Any) -> None:
    """End the process that runs it, politely."""
    note(self, "start")
    raise SystemExit(3)


@app.task(name="ledger.refuse", bind=True)
def refuse(self: Any, times: int) -> str:
    """Asks to be delivered anew, so often."""
    note(self, "start")
    if _client[1].incr(f"refused:{self.request.id}") <= times:
        raise Reject("not now", requeue=True)
    return "done"


@app.task(name="ledger.drop", bind=True)
def drop(self: Any) -> None:
    note(self, "start")
    raise Reject("never", requeue=False)


@app.task(name="ledger.ignore", bind=True)
def ignore(self: Any) -> None:
    note(self, "start")
    raise Ignore


@app.task(name="ledger.early", bind=True, acks_late=False)
def early(self: Any, seconds: float = 0.0) -> str:
    """Acknowledged when it starts."""
    note(self, "start")
    time.sleep(seconds)  # noqa: TID251
    return "done"


@app.task(name="ledger.limited", bind=True, rate_limit="10/s")
def limited(self: Any) -> str:
    note(self, "start")
    return "done"


@app.task(name="ledger.soft", bind=True, soft_time_limit=1)
def soft(self: Any) -> str:
    """Takes too long, and is told so."""
    note(self, "start")
    try:
        time.sleep(60)  # noqa: TID251
    except SoftTimeLimitExceeded:
        return "gave up"
    return "too late"


@app.task(name="ledger.hard", bind=True, time_limit=1)
def hard(self: Any) -> None:
    """Takes too long, and is killed."""
    note(self, "start")
    time.sleep(60)  # noqa: TID251


@app.task(name="ledger.overdue", time_limit=1.0)
def overdue() -> None:
    """Its end is reported for as long as a key is missing."""
    time.sleep(60)  # noqa: TID251


@task_failure.connect(sender=overdue)
def report(task_id: str, **_: Any) -> None:
    """What a user's handler may do in the worker's main process: take its time."""
    client = connect(LEDGER_URL)
    client.rpush(RAN, json.dumps([task_id, "report", 0.0, os.getpid()]))
    while not client.exists("reported"):
        time.sleep(0.02)  # noqa: TID251
    client.close()


@app.task(name="ledger.aside", bind=True)
def aside(self: Any, key: str) -> str:
    """Ends well, and has sent another try of itself, which works until somebody sets a key."""
    if self.request.retries:
        return str(until.run.__func__(self, key))
    self.retry(throw=False, countdown=0)
    note(self, "aside")
    return "first"


@app.task(name="ledger.replaced", bind=True)
def replaced(self: Any, key: str) -> Any:
    """Another task goes on in its place, until somebody sets a key."""
    note(self, "aside")
    raise self.replace(until.s(key))


@app.task(name="ledger.read", bind=True)
def read(self: Any, queue: str) -> Any:
    """Reads a queue that has nothing to do with tasks."""
    with self.app.connection_for_write() as connection:
        message = connection.SimpleQueue(queue).get(timeout=30)
        message.ack()
        return message.payload


@app.task(name="ledger.steps", bind=True, checkpoint=True)
def steps(self: Any, count: int, fails_at: int = -1) -> str:
    """So many steps, each when it is allowed; goes on where it was saved last."""
    note(self, f"open {self.request.hostname}")
    spot = fleet.checkpoint()
    for n in range((spot.state or {"n": 0})["n"], count):
        while int(_client[1].get(f"allowed:{self.request.id}") or 0) <= n:
            time.sleep(0.02)  # noqa: TID251
        note(self, f"step {n} {self.request.hostname}")
        spot.save({"n": n + 1})
        if n == fails_at and not self.request.retries:
            raise self.retry(countdown=0)
    note(self, "end")
    return "done"


class TouchyRequest(Request):
    """Raises where Celery does not expect it, when a slot is taken already."""

    def revoked(self) -> bool:
        raise RuntimeError("do not touch")


class HeavyRequest(Request):
    """Cannot be handed to another process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_dict["heavy"] = lambda: None


@app.task(name="ledger.touchy", Request=TouchyRequest)
def touchy() -> None:
    """Never started."""


@app.task(name="ledger.heavy", bind=True, Request=HeavyRequest)
def heavy(self: Any) -> str:
    note(self, "start")
    return "done"


@control_command(args=[("seconds", float)])
def stall(state: Any, seconds: float) -> dict[str, str]:
    """Have the event loop of the worker stand still."""
    time.sleep(seconds)  # noqa: TID251
    return {"ok": "awake"}


@control_command()
def jobs(state: Any) -> int:
    """How many jobs the pool thinks that it has."""
    pool = getattr(state.consumer.pool, "_pool", None)
    return len(getattr(pool, "_cache", None) or ())
