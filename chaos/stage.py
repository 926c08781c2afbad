"""Server, processes and files of one run, in one folder. All have ended when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery

from chaos.crew import Crew, Place, control_places
from chaos.forkserver import ForkServer
from chaos.ledger import Line, Tail
from chaos.remains import remains, spooled
from chaos.server import BrokerServer, serving
from chaos.side import STATE, Side
from nxs_tasks.clock import wait_until
from nxs_tasks.store import Keys

#: Longest wait for what should come soon, s. A deadline, not an expectation.
PATIENCE_S = 60.0
Say = Callable[[str], None]
KEYS = Keys("default")
#: A queue that nobody consumes.
STAGING = "chaos.staging"


class StageError(Exception):
    """What was to be looked at did not come about: there is no result."""


class Stage:
    """One side's server and crew. A context; nobody is started yet when it is entered."""

    forks: ForkServer
    crew: Crew

    def __init__(self, side: Side, places: Sequence[Place], directory: Path) -> None:
        self.side = side
        self.sent, self.worked = directory / "sent", directory / "worked"
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.directory = directory
        self.control = control_places() if side.has_control else []
        self._places = [*places, *self.control]
        self.server = BrokerServer(directory / "server")
        self._tail = Tail(self.worked)
        self.lines: list[Line] = []
        self._stack = ExitStack()

    def add(self, place: Place) -> None:
        """One more, before it is entered."""
        self._places.append(place)

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            stack.enter_context(serving(self.server))
            env = self.side.environment(self.server.url, self.directory, self.worked)
            log = self.logs / "forkserver.log"
            self.forks = stack.enter_context(ForkServer(self.side.app, env, log))
            self.server.watch(self.forks.guard)
            self.crew = Crew(self.forks, self._places, self.logs)
            stack.callback(self.crew.end_orphans)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_all(self) -> None:
        """Start everybody."""
        self.start(self.crew.places)

    def start(self, places: Iterable[Place]) -> None:
        """Start some."""
        for place in places:
            self.crew.start(place)

    def look(self) -> list[Line]:
        """All lines of the tasks so far, read anew."""
        self.lines += self._tail.lines()
        return self.lines

    def until(self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Wait for what should come. Raises `StageError` if it does not."""

        def holds() -> bool:
            self.look()
            return condition()

        if not wait_until(holds, within_s):
            raise StageError(f"not within {within_s:.0f} s: {what}; logs: {self.logs}")

    def left(self) -> dict[str, tuple[str, ...]]:
        """Place → ids of the tasks that are still in the broker, or on the way to it."""
        with self.server.client() as client:
            return {**remains(client), **spooled(self.directory / STATE)}

    def until_active(self, places: Iterable[Place]) -> None:
        """Wait until the fleet has taken all of them in."""
        records = [KEYS.instance(place.node) for place in places]
        with self.server.client() as client:
            self.until(
                lambda: all(client.hget(record, "state") == "ACTIVE" for record in records),
                "all instances are ACTIVE",
            )

    def hand(self, place: Place, jobs: Mapping[str, Sequence[Any]], **options: Any) -> None:
        """Put tasks into the own queue of one instance."""
        self.send(jobs, queue=STAGING, **options)
        with self.server.client() as client:
            for _ in jobs:
                client.lmove(STAGING, KEYS.own_queue(place.node), "RIGHT", "LEFT")

    def send(
        self, jobs: Mapping[str, Sequence[Any]], name: str = "chaos.work", **options: Any
    ) -> None:
        """Send tasks as a stock producer does: id → arguments."""
        url = self.server.url
        app = Celery("chaos", broker=url, backend=url, set_as_current=False)
        try:
            for id_, arguments in jobs.items():
                app.send_task(name, arguments, task_id=id_, **options)
        finally:
            app.close()
