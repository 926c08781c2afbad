"""What every part of one process shares: settings, clock, and the two stores, opened when needed.

`Fleet(app)` makes it and leaves it on the app, where bootsteps, control tasks and the beat find
it: Celery builds those itself and hands them nothing but the app.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

from nxs_tasks.breaker import Breaker
from nxs_tasks.celery_settings import Change
from nxs_tasks.clock import SYSTEM, Clock
from nxs_tasks.errors import SettingError
from nxs_tasks.history import History, open_history
from nxs_tasks.settings import Settings, Sourced
from nxs_tasks.store import FleetStore, Keys, Wire, connect

#: What the names of all control tasks begin with.
CONTROL_TASKS = "nxs.control."
#: The command of remote control by which a worker that fell silent is asked to end.
ASK_TO_END = "nxs_end"
#: Where `Fleet(app)` leaves it on the app.
ATTRIBUTE = "nxs_runtime"


class Runtime:
    """Settings, clock, store and history of one Celery app in one process."""

    def __init__(self, app: Any, sourced: Sourced, clock: Clock = SYSTEM) -> None:
        self.app = app
        self.sourced = sourced
        self.clock = clock
        #: Whether the broker takes messages, as this process saw it last.
        self.breaker = Breaker()
        self._store: tuple[int, FleetStore] | None = None
        self._history: tuple[int, History] | None = None
        self._token = (0, "")
        #: What was changed in the app's Celery settings; empty until the app is configured.
        self.changes: tuple[Change, ...] = ()
        #: Called by `flush`: parts that buffer what they will send.
        self.flushers: list[Callable[[], None]] = []
        #: Called by `keep_up`: what a process does now and then, and at once.
        self.upkeep: list[Callable[[], None]] = []
        #: One run of a control job at a time, by its name.
        self.job_locks: dict[str, threading.Lock] = {}
        #: Why this process is not ready for work yet, in its own words; "" = it is.
        self.progress = ""
        #: Why the app's configuration was refused after `Fleet(app)`; see `require_accepted`.
        self.refusal: SettingError | None = None

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        return self.sourced.settings

    @property
    def shared_queue(self) -> str:
        """The queue that every instance consumes: the app's default queue."""
        return str(self.app.conf.task_default_queue)

    @property
    def keys(self) -> Keys:
        """The names of the fleet's keys and queues."""
        return Keys(self.settings.fleet)

    @property
    def broker_url(self) -> str:
        """Where tasks are written to."""
        conf = self.app.conf
        url = conf.broker_write_url or conf.broker_url or self.app.connection_for_write().as_uri()
        return ";".join(url) if isinstance(url, list | tuple) else str(url)

    def store(self) -> FleetStore:
        """The live state. One client for each process: a fork gets its own."""
        if self._store is None or self._store[0] != os.getpid():
            self._store = (os.getpid(), self.new_store())
        return self._store[1]

    def new_store(self, client_name: str | None = None) -> FleetStore:
        """A store with a client of its own, such as for a thread that must not wait for others."""
        conf = self.app.conf
        options = dict(conf.broker_transport_options or {})
        client = connect(
            self.broker_url,
            options,
            ssl=conf.broker_use_ssl,
            timeout_s=self.settings.broker_timeout,
            client_name=client_name,
        )
        wire = Wire.from_options(options)
        return FleetStore(client, self.keys, wire, self.shared_queue, self.broker_url)

    def history(self) -> History:
        """The history database, opened and brought up to date on first use."""
        if self._history is None or self._history[0] != os.getpid():
            settings = self.settings
            opened = open_history(
                settings.history_url, settings.state_path, self.clock, settings.fleet
            )
            self._history = (os.getpid(), opened)
        return self._history[1]

    def require_accepted(self) -> None:
        """Raises the `SettingError` that nobody heard when the app was configured."""
        if self.refusal is not None:
            raise self.refusal

    def flush(self) -> None:
        """Send what is buffered in this process, before its broker goes away."""
        for flusher in self.flushers:
            flusher()

    def keep_up(self) -> None:
        """Do what is done now and then. A worker calls it with each heartbeat or control job."""
        for keeper in self.upkeep:
            keeper()

    @property
    def app_name(self) -> str:
        """The app's own name; apps of different names have schedules of their own."""
        return str(self.app.main or "app")

    def identity(self) -> str:
        """Host, pid and a token: in containers many processes have the same host and pid."""
        if self._token[0] != os.getpid():
            self._token = (os.getpid(), secrets.token_hex(4))
        return f"{socket.gethostname()}/{os.getpid()}/{self._token[1]}"


def runtime_of(app: Any) -> Runtime:
    """The runtime that `Fleet(app)` left on the app. Raises `SettingError` if there is none."""
    found = getattr(app, ATTRIBUTE, None)
    if not isinstance(found, Runtime):
        raise SettingError(f"the Celery app {app.main!r} has no fleet: add `Fleet(app)` to it")
    return found
