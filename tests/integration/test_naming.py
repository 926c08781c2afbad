"""Taking a node name on a real server: a restart gets it at once, a second living process never."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.errors import JoinRefused, NameTaken
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore, connect
from nxs_tasks.store.events import Events
from nxs_tasks.worker.naming import take_name
from tests.conftest import Server, add_instance, beat, new_store, set_back

PROFILE = Profile(tasks=frozenset({"shop.pay"}), queues=frozenset({"celery"}))
SETTINGS = Settings(heartbeat_period=0.5)


class Wait:
    """Waits as the package does, but not for longer than told; remembers how long it should."""

    def __init__(self, deadline_s: float = 5.0) -> None:
        self.deadline_s = deadline_s
        self.asked: list[float] = []

    def __call__(self, condition: Callable[[], bool], deadline_s: float, poll_s: float) -> bool:
        self.asked.append(deadline_s)
        return wait_until(condition, self.deadline_s, 0.01)


def never(condition: Callable[[], bool], deadline_s: float, poll_s: float) -> bool:
    pytest.fail("waits for a process that cannot be there")


@pytest.fixture
def fleet_store(url: str) -> FleetStore:
    return new_store(url)


def the(store: FleetStore, *, full: bool = False) -> Instance:
    found = store.snapshot(full=full).get("w1")
    assert found is not None
    return found


@contextmanager
def process(url: str, epoch: int, *, beating: bool) -> Iterator[FleetStore]:
    """Another process: a connection with the name of its epoch, and perhaps heartbeats."""
    store = new_store(url)
    store.client.close()
    client = connect(url, client_name=f"nxs:default:w1:{epoch}")
    other = FleetStore(client, store.keys, store.wire, store.shared_queue, url)
    other.ping()
    over = threading.Event()

    def beat_on() -> None:
        while not over.wait(0.02):
            beat(other, "w1", epoch, slots=2)

    thread = threading.Thread(target=beat_on)
    if beating:
        thread.start()
    try:
        yield other
    finally:
        over.set()
        if beating:
            thread.join()
        client.close()


def test_a_fresh_name(fleet_store: FleetStore) -> None:
    assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never) == 1
    assert (the(fleet_store).state, the(fleet_store).identity) == (State.JOINING, "host/2")
    assert the(fleet_store).profile == PROFILE


@pytest.mark.parametrize("state", [state for state in State if state is not State.FAILED])
def test_a_dead_process_is_replaced_at_once(fleet_store: FleetStore, state: State) -> None:
    # Its last heartbeat was just now, and no connection is left: killed, or its machine is gone.
    add_instance(fleet_store, "w1", state)
    assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never) == 2
    assert (the(fleet_store).epoch, the(fleet_store).identity) == (2, "host/2")
    assert Events(fleet_store).pending_transitions("w1")[-1].event == "joined"


def test_a_living_process_is_not(fleet_store: FleetStore, url: str) -> None:
    epoch = add_instance(fleet_store, "w1")
    recorded = Events(fleet_store).pending_transitions()
    wait = Wait()
    with process(url, epoch, beating=True):
        with pytest.raises(NameTaken) as error:
            take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, wait)
        assert (the(fleet_store).epoch, the(fleet_store).identity) == (epoch, "host/1")
    for part in ("'w1'", "process host/1", "epoch 1", "ACTIVE", "celery worker -n NAME@%h"):
        assert part in str(error.value)
    assert Events(fleet_store).pending_transitions() == recorded


def test_a_hung_process_is_waited_for_and_then_replaced(fleet_store: FleetStore, url: str) -> None:
    epoch = add_instance(fleet_store, "w1")
    wait = Wait(deadline_s=0.05)
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, wait) == 2
    assert wait.asked == [2 * SETTINGS.heartbeat_period]


def test_the_wait_of_the_package_is_two_heartbeats(fleet_store: FleetStore, url: str) -> None:
    epoch = add_instance(fleet_store, "w1")
    settings = Settings(heartbeat_period=0.1)
    before = SYSTEM.monotonic()
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/2", PROFILE, settings) == 2
    assert SYSTEM.monotonic() - before >= 0.2


def test_a_process_that_has_been_silent_for_long_is_replaced_at_once(
    fleet_store: FleetStore, url: str
) -> None:
    epoch = add_instance(fleet_store, "w1")
    set_back(fleet_store, "w1", "beat_at", SETTINGS.silent_after + 1)
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never) == 2


def test_a_process_that_said_that_it_has_stopped_is_replaced_at_once(
    fleet_store: FleetStore, url: str
) -> None:
    epoch = add_instance(fleet_store, "w1", State.LEAVING)
    load = the(fleet_store).load
    counts = {"succeeded": 0, "failed": 0, "window_days": 7}
    fleet_store.heartbeat("w1", epoch, load, longest_gap_s=10.0, last=True, **counts)
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never) == 2


def test_a_process_that_has_ended_is_replaced_at_once(fleet_store: FleetStore, url: str) -> None:
    epoch = add_instance(fleet_store, "w1", State.GONE)
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never) == 2


def test_a_name_that_failed_is_refused_for_a_while(fleet_store: FleetStore) -> None:
    add_instance(fleet_store, "w1", State.FAILED)
    with pytest.raises(JoinRefused):
        take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, never)
    assert the(fleet_store).epoch == 1


def test_connections_of_an_older_epoch_keep_nobody_waiting(
    fleet_store: FleetStore, url: str
) -> None:
    epoch = add_instance(fleet_store, "w1")
    add_instance(fleet_store, "w1")
    with process(url, epoch, beating=False):
        assert take_name(fleet_store, "w1", "host/3", PROFILE, SETTINGS, never) == 3


def test_where_connections_cannot_be_known_a_heartbeat_decides(own_server: Server) -> None:
    with connect(own_server.url) as client:
        rights = ["on", ">pw", "~*", "&*", "+@all", "-client|list"]
        client.execute_command("ACL", "SETUSER", "shy", *rights)
    shy = new_store(own_server.url.replace("//", "//shy:pw@"))
    epoch = add_instance(shy, "w1")
    with process(own_server.url, epoch, beating=True), pytest.raises(NameTaken):
        take_name(shy, "w1", "host/2", PROFILE, SETTINGS, Wait())
    wait = Wait(deadline_s=0.05)
    assert take_name(shy, "w1", "host/2", PROFILE, SETTINGS, wait) == 2
    assert len(wait.asked) == 1


def test_of_two_that_start_at_the_same_moment_one_gets_it(
    fleet_store: FleetStore, url: str
) -> None:
    epoch = add_instance(fleet_store, "w1")

    def meanwhile(condition: Callable[[], bool], deadline_s: float, poll_s: float) -> bool:
        # The other one has waited as long, and is first.
        new_store(url).join("w1", "host/other", PROFILE, seen_epoch=epoch)
        return False

    with process(url, epoch, beating=False), pytest.raises(NameTaken, match="at the same moment"):
        take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, meanwhile)
    assert the(fleet_store).identity == "host/other"


def test_a_process_that_is_just_starting_is_not_replaced(fleet_store: FleetStore, url: str) -> None:
    epoch = fleet_store.join("w1", "host/1", PROFILE, seen_epoch=0)
    with process(url, epoch, beating=False) as other:

        def wait(condition: Callable[[], bool], deadline_s: float, poll_s: float) -> bool:
            beat(other, "w1", epoch, slots=2)
            return condition()

        with pytest.raises(NameTaken):
            take_name(fleet_store, "w1", "host/2", PROFILE, SETTINGS, wait)
