"""Locks: free as soon as the holder is no more, refused to whoever held them before."""

from __future__ import annotations

import json
import threading
from typing import Any, cast

import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerUnreachable, LockTaken, Stale
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.guard import held_in
from nxs_tasks.store.holdings import holdings
from nxs_tasks.store.locks import KNOWN_FOR_MS, Lock
from nxs_tasks.store.token import Token
from nxs_tasks.worker.lease import Lease
from tests.conftest import Server, add_instance, new_store
from tests.integration.deliveries import TOKEN, Shop, hold, run, stored, take_away
from tests.integration.messages import message

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


class TestPartOfAWorker:
    """Outside of its tasks: an initializer, a thread, a task that acknowledges early."""

    def held(self, store: FleetStore, **more: Any) -> Lock:
        epoch = add_instance(store, "w@t")
        ours = lock(store, place=("w@t", epoch), lease_s=3600.0, **more)
        assert ours.acquire()
        assert not lock(store, "them").acquire()
        return ours

    def assert_lost(self, store: FleetStore, ours: Lock) -> None:
        assert list(holdings(store)) == []
        assert not ours.renew()
        theirs = lock(store, "them")
        assert theirs.acquire(), "no lease is waited for"
        before = fields(store)
        assert not ours.renew()
        assert not ours.release()
        assert fields(store) == before
        assert theirs.release()

    @pytest.mark.parametrize("state", [State.GONE, State.FAILED])
    def test_who_is_given_up_holds_no_more(self, store: FleetStore, state: State) -> None:
        ours = self.held(store)
        store.client.hset(store.keys.instance("w@t"), "state", state)
        self.assert_lost(store, ours)

    @pytest.mark.parametrize("state", sorted(set(State) - ENDED))
    def test_who_is_not_given_up_holds_on(self, store: FleetStore, state: State) -> None:
        ours = self.held(store)
        store.client.hset(store.keys.instance("w@t"), "state", state)
        assert not lock(store, "them").acquire()
        assert ours.renew()
        assert ours.release()

    def test_who_is_replaced_holds_no_more(self, store: FleetStore) -> None:
        """Killed, and started again under its name at once: nobody waits for the lease."""
        ours = self.held(store)
        add_instance(store, "w@t", identity="host/2")
        self.assert_lost(store, ours)

    def test_who_is_forgotten_holds_no_more(self, store: FleetStore) -> None:
        ours = self.held(store)
        store.client.delete(store.keys.instance("w@t"))
        self.assert_lost(store, ours)

    def test_it_can_give_up_what_nobody_has_taken(self, store: FleetStore) -> None:
        ours = self.held(store)
        store.client.hset(store.keys.instance("w@t"), "state", State.GONE)
        assert not ours.release()
        assert "owner" not in fields(store)

    def test_who_has_no_place_yet_holds_for_a_lease(self, store: FleetStore) -> None:
        ours = lock(store, place=("w@t", 7))
        assert ours.acquire()
        assert "epoch" not in fields(store)
        assert ours.renew()
        assert ours.release()

    def test_the_next_holder_is_not_bound_to_the_place_of_the_last(self, store: FleetStore) -> None:
        ours = self.held(store)
        ours.release()
        theirs = lock(store, "them")
        assert theirs.acquire()
        store.client.hset(store.keys.instance("w@t"), "state", State.GONE)
        assert theirs.renew()
        assert theirs.release()


class TestWhoLooks:
    def test_sees_who_holds_and_by_what(self, store: FleetStore) -> None:
        assert list(holdings(store)) == []
        raw = message("t1", task="shop.pay")
        entry = json.dumps([json.loads(raw), "", "celery"])
        store.client.hset(held_in(store, TOKEN), str(TOKEN), entry)
        epoch = add_instance(store, "v@t")
        by_task = Lock(store, "by task", owner="host/1/a", task=TOKEN)
        by_lease = Lock(store, "by lease", owner="host/2/b", lease_s=30.0)
        by_worker = Lock(store, "by worker", owner="host/3/c", place=("v@t", epoch))
        for one in (by_task, by_lease, by_worker):
            assert one.acquire()
        given_up = Lock(store, "given up", owner="host/2/b")
        with given_up:
            pass
        found = {one.name: one for one in holdings(store)}
        assert list(found) == ["by lease", "by task", "by worker"]
        now = store.now()
        assert all(one.number > 0 and 0 <= now - one.since < 60 for one in found.values())
        task, lease, worker = found["by task"], found["by lease"], found["by worker"]
        assert (task.instance, task.epoch, task.until) == ("w@t", 4, None)
        assert (task.task, task.task_id, task.process) == ("shop.pay", "t1", "host/1/a")
        assert (lease.instance, lease.epoch, lease.process) == ("", None, "host/2/b")
        assert lease.until == pytest.approx(now + 30, abs=5)
        assert (worker.instance, worker.epoch) == ("v@t", epoch)
        assert task.number == by_task.token

    def test_does_not_see_what_is_held_no_more(self, store: FleetStore) -> None:
        hold(store)
        by_task = lock(store, task=TOKEN)
        by_task.acquire()
        [unreadable] = holdings(store)
        assert (unreadable.instance, unreadable.task) == ("w@t", "")
        take_away(store)
        assert list(holdings(store)) == []
        with lock(store):
            end_lease(store)
            assert list(holdings(store)) == []
            store.client.hset(store.keys.lock("till"), "until", repr(9e15))


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

    def test_in_a_worker_it_goes_with_the_workers_place(self, here: Shop) -> None:
        epoch = add_instance(here.store, "w@t")
        fence = here.fleet.fence
        assert fence.place() is None
        lease = fence.lease = Lease(30.0)
        fence.instance = "w@t"
        assert fence.place() is None, "the broker does not know it yet"
        lease.renew(epoch, 1.0)
        assert fence.place() == ("w@t", epoch)
        with here.fleet.lock("till"):
            [held] = holdings(here.store)
            assert (held.instance, held.epoch) == ("w@t", epoch)
        lease.lapse()
        assert fence.place() is None

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
