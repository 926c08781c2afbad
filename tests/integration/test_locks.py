"""Locks: free as soon as the holder is no more, refused to whoever held them before."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerUnreachable, LockTaken, Stale
from nxs_tasks.store import FleetStore
from nxs_tasks.store.locks import KNOWN_FOR_MS, Lock
from nxs_tasks.store.token import Token
from tests.conftest import Server, new_store
from tests.integration.deliveries import TOKEN, Shop, hold, run, stored, take_away

pytest_plugins = ["tests.integration.deliveries_fixtures"]

OTHER = Token("v@t", 2, 1)
PATIENCE_S = 20.0


def lock(store: FleetStore, owner: str = "us", task: Token | None = None, **more: Any) -> Lock:
    return Lock(store, "till", owner=owner, task=task, **{"wait_s": 0.0, **more})


def fields(store: FleetStore) -> dict[str, str]:
    return cast("dict[str, str]", store.client.hgetall(store.keys.lock("till")))


def end_lease(store: FleetStore) -> None:
    """Have the holder not have renewed for too long."""
    store.client.hset(store.keys.lock("till"), "until", "1")


class TestAnybody:
    def test_has_it_alone(self, store: FleetStore) -> None:
        ours, theirs = lock(store), lock(store, "them")
        assert ours.acquire()
        assert not theirs.acquire()
        assert ours.release()
        assert theirs.acquire()
        assert theirs.release()

    def test_gets_a_higher_number_each_time(self, store: FleetStore) -> None:
        numbers = []
        for owner in ("us", "them", "us"):
            with lock(store, owner) as held:
                numbers.append(held.token)
        assert numbers == sorted(set(numbers))

    def test_gets_a_higher_number_also_when_the_lock_was_forgotten(self, store: FleetStore) -> None:
        with lock(store) as held:
            before = held.token
        assert 0 < store.client.pttl(store.keys.lock("till")) <= KNOWN_FOR_MS
        store.client.delete(store.keys.lock("till"))
        wait_until(lambda: store.now() * 1000 > before + 1, PATIENCE_S, 0.001)
        with lock(store) as held:
            assert held.token > before

    def test_gets_a_higher_number_also_when_the_clock_was_set_back(self, store: FleetStore) -> None:
        store.client.hset(store.keys.lock("till"), "number", "9007199254740000")
        with lock(store) as held:
            assert held.token == 9007199254740001

    def test_has_no_number_without_holding(self, store: FleetStore) -> None:
        held = lock(store)
        with pytest.raises(Stale, match="'till' is not held"):
            _ = held.token
        with held:
            assert held.token
        with pytest.raises(Stale):
            _ = held.token

    def test_waits_for_it(self, store: FleetStore) -> None:
        ours, theirs = lock(store), lock(store, "them", wait_s=PATIENCE_S)
        assert ours.acquire()
        waiter = threading.Thread(target=theirs.acquire)
        waiter.start()
        assert ours.release()
        waiter.join(PATIENCE_S)
        assert theirs.token
        assert theirs.release()

    def test_is_told_when_it_was_not_free_in_time(self, store: FleetStore) -> None:
        with (
            lock(store),
            pytest.raises(LockTaken, match=r"'till' is held by another, .* within 0 s"),
            lock(store, "them"),
        ):
            pytest.fail("two hold it")

    def test_does_not_get_it_twice_through_one_object(self, store: FleetStore) -> None:
        ours = lock(store)
        assert ours.acquire()
        number = ours.token
        assert not ours.acquire()
        assert ours.token == number
        assert ours.release()

    def test_asks_again_after_a_lost_answer(self, store: FleetStore) -> None:
        key = store.keys.lock("till")
        asked = [store.call("acquire_lock", [key, key], ["a", "", 9000, 1]) for _ in range(2)]
        assert asked[0][0] == 1
        assert asked[0] == asked[1]
        assert [store.call("release_lock", [key], ["a", 9000]) for _ in range(2)] == [1, 1]
        assert store.call("release_lock", [key], ["b", 9000]) == 0

    def test_one_of_many_at_a_time(self, url: str) -> None:
        inside: list[int] = []
        most: list[int] = []

        def work(number: int) -> None:
            mine = lock(new_store(url), f"thread {number}", wait_s=PATIENCE_S)
            for _ in range(5):
                with mine:
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert most == [1] * 30


class TestATask:
    def test_holds_as_long_as_its_message(self, store: FleetStore) -> None:
        hold(store)
        ours, theirs = lock(store, task=TOKEN, lease_s=0.001), lock(store, "them")
        assert ours.acquire()
        end_lease(store)
        assert store.client.pttl(store.keys.lock("till")) == -1
        assert ours.renew()
        assert not theirs.acquire(), "no time-out is guessed"
        take_away(store)
        assert theirs.acquire(), "no time is waited for"
        assert theirs.release()

    def test_has_lost_it_with_its_message(self, store: FleetStore) -> None:
        hold(store)
        hold(store, OTHER)
        ours, theirs = lock(store, task=TOKEN), lock(store, "them", OTHER)
        assert ours.acquire()
        take_away(store)
        assert not ours.renew()
        assert theirs.acquire()
        before = fields(store)
        assert not ours.renew()
        assert not ours.release()
        assert fields(store) == before
        assert theirs.renew()
        assert theirs.release()

    def test_does_not_get_it_without_its_message(self, store: FleetStore) -> None:
        with pytest.raises(Stale, match=r"lock 'till': .*w@t\|4\|7"):
            lock(store, task=TOKEN).acquire()
        assert fields(store) == {}

    def test_gives_up_what_nobody_has_taken_since(self, store: FleetStore) -> None:
        hold(store)
        ours = lock(store, task=TOKEN)
        assert ours.acquire()
        take_away(store)
        assert not ours.release()
        assert "owner" not in fields(store)

    def test_is_told_at_the_end_that_it_was_not_alone(self, store: FleetStore) -> None:
        hold(store)
        with pytest.raises(Stale, match="was lost while it was held"), lock(store, task=TOKEN):
            take_away(store)

    def test_an_error_of_its_own_comes_first(self, store: FleetStore) -> None:
        def work() -> None:
            with lock(store, task=TOKEN):
                take_away(store)
                raise ZeroDivisionError

        hold(store)
        with pytest.raises(ZeroDivisionError):
            work()


class TestOutsideOfTasks:
    def test_it_is_held_for_a_lease(self, store: FleetStore) -> None:
        ours, theirs = lock(store), lock(store, "them")
        assert ours.acquire()
        end_lease(store)
        assert not ours.renew()
        assert theirs.acquire()
        before = fields(store)
        assert not ours.renew()
        assert not ours.release()
        assert fields(store) == before
        assert theirs.release()

    def test_the_lease_is_renewed_while_it_is_held(self, store: FleetStore) -> None:
        ours = lock(store, lease_s=0.3)
        assert ours.acquire()
        first = float(fields(store)["until"])
        assert wait_until(lambda: float(fields(store)["until"]) > first + 600, PATIENCE_S)
        assert ours.release()
        assert not [t for t in threading.enumerate() if t.name == "nxs-lock-till"]

    def test_a_renewal_that_comes_too_late_ends(
        self, store: FleetStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        ours = lock(store, lease_s=0.1)
        assert ours.acquire()
        store.client.hset(store.keys.lock("till"), "owner", "them")
        assert wait_until(lambda: "the lock 'till' was lost" in caplog.text, PATIENCE_S)
        assert not ours.release()


class TestTheFleets:
    def test_a_task_holds_by_its_message(self, here: Shop) -> None:
        seen: list[Any] = []

        @here.app.task(name="shop.pay", shared=False)
        def pay() -> int:
            with here.fleet.lock("till") as held:
                seen.append(fields(here.store)["token"])
                return held.token

        hold(here.store)
        run(pay, id="t1")
        found = stored(here.fleet, "t1")
        assert seen == [str(TOKEN)]
        assert found is not None
        assert found["result"] > 1_700_000_000_000

    def test_a_task_that_acknowledges_early_holds_for_a_lease(self, here: Shop) -> None:
        seen: list[Any] = []

        @here.app.task(name="shop.pay", shared=False, acks_late=False)
        def pay() -> None:
            with here.fleet.lock("till"):
                seen.append(fields(here.store))

        run(pay, id="t1")
        assert seen[0]["token"] == ""
        assert seen[0]["owner"].startswith(here.fleet.runtime.identity())

    def test_who_is_no_task_holds_for_a_lease(self, here: Shop) -> None:
        with here.fleet.lock("till", lease=5.0):
            left = float(fields(here.store)["until"]) - here.store.now() * 1000
            assert 4000 < left <= 5000
            assert not here.fleet.lock("till").acquire(0.0)
        assert here.fleet.lock("till").release() is False

    def test_a_prefix_of_kombus_keys_is_heeded(self, anywhere: Shop) -> None:
        hold(anywhere.store)
        ours = lock(anywhere.store, task=TOKEN)
        assert ours.acquire()
        take_away(anywhere.store)
        assert not ours.renew()


def test_a_server_that_does_not_answer_is_an_error(own_server: Server) -> None:
    """And what it has taken in before it fell silent is recognized afterwards."""
    store = new_store(own_server.url)
    ours = lock(store)
    own_server.kill()
    with pytest.raises(BrokerUnreachable):
        ours.acquire()
    own_server.start()
    key = store.keys.lock("till")
    assert store.call("acquire_lock", [key, key], [ours._asking, "", 30_000, 1])[0] == 1
    assert not lock(store, "them").acquire()
    assert ours.acquire()
    assert ours.release()
