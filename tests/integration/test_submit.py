"""Submitting through real Celery apps to a real server; what was sent is read from its lists.

No worker runs: the instances are put into the store by hand, so nothing takes a task away.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from kombu import Exchange, Producer, Queue

from nxs_tasks import Fleet
from nxs_tasks.clock import FakeClock
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.record import PlacementRecord
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet import placement
from nxs_tasks.store import FleetStore, Keys
from nxs_tasks.store.events import Events
from tests.conftest import MakeApp, Server, add_instance, beat, new_store
from tests.integration.black_hole import ready

KEYS = Keys("default")
W0, W1, W2 = (KEYS.own_queue(f"w{n}") for n in range(3))
CONTROL = KEYS.control_queue()
ROOMY = {"slots": 50, "cores": 4}


class Shop:
    """An app with a fleet and the task shop.pay, and what lies in its broker."""

    def __init__(self, fleet: Fleet, url: str, clock: FakeClock) -> None:
        self.fleet = fleet
        self.app: Any = fleet.app
        self.clock = clock
        self.store = new_store(url)

        self.pay: Any = self.task("shop.pay")

    def task(self, name: str, **options: Any) -> Any:
        @self.app.task(name=name, shared=False, **options)
        def task(*args: int) -> None: ...

        return task

    def add(self, instance_id: str, **load: Any) -> int:
        return add_instance(self.store, instance_id, tasks=("shop.pay", "shop.mail"), **load)

    def sent(self, queue: str, priority: int = 0) -> list[dict[str, Any]]:
        """The messages of a queue, oldest first."""
        keys = dict(zip(self.store.wire.steps, self.store.wire.queue_keys(queue), strict=True))
        raws: Any = self.store.client.lrange(keys[priority], 0, -1)
        return [json.loads(raw) for raw in reversed(raws)]

    def depths(self) -> dict[str, int]:
        """Every list of the broker and its length."""
        found: Any = self.store.client.scan_iter(_type="list")
        return {key: int(self.store.client.llen(key)) for key in found}

    def bindings(self) -> set[str]:
        found: Any = self.store.client.scan_iter(match="_kombu.binding.*")
        return {key.removeprefix("_kombu.binding.") for key in found}

    def placed(self) -> list[PlacementRecord]:
        records = Events(self.store).read().records
        return [r for r in records if isinstance(r, PlacementRecord)]


MakeShop = Callable[..., Shop]


@pytest.fixture
def make_shop(make_app: MakeApp) -> MakeShop:
    """`make_shop(url, conf={…}, **settings)`; its clock stands still."""

    def make(url: str, conf: dict[str, Any] | None = None, **settings: Any) -> Shop:
        clock = FakeClock()
        return Shop(make_app(url, conf, clock=clock, **settings), url, clock)

    return make


@pytest.fixture
def shop(make_shop: MakeShop, url: str) -> Shop:
    return make_shop(url)


SUBMISSIONS: dict[str, tuple[int, Callable[[Shop], object]]] = {
    # name: (messages, how they are sent)
    "delay": (1, lambda shop: shop.pay.delay(1)),
    "apply_async": (1, lambda shop: shop.pay.apply_async((1,), countdown=5, expires=60)),
    "signature": (1, lambda shop: shop.pay.s(1).apply_async()),
    "send_task": (1, lambda shop: shop.app.send_task("shop.pay", (1,))),
    "group": (3, lambda shop: group(shop.pay.s(n) for n in range(3))()),
    "chord header": (2, lambda shop: chord([shop.pay.s(1), shop.pay.s(2)])(shop.pay.s())),
    "first link of a chain": (1, lambda shop: chain(shop.pay.s(1), shop.pay.s(2))()),
}


class TestWhere:
    @pytest.mark.parametrize("way", SUBMISSIONS)
    def test_the_best_instance_gets_it_into_its_own_queue(self, shop: Shop, way: str) -> None:
        count, submit = SUBMISSIONS[way]
        shop.add("w1", load_avg=2.0, **ROOMY)
        shop.add("w2", load_avg=0.0, **ROOMY)
        shop.add("w3", load_avg=3.0, **ROOMY)
        submit(shop)
        assert shop.depths() == {W2: count}
        for message in shop.sent(W2):
            assert message["headers"]["task"] == "shop.pay"
            info = message["properties"]["delivery_info"]
            assert (info["exchange"], info["routing_key"]) == ("", W2)

    @pytest.mark.parametrize("way", ["delay", "submit", "submit_many"])
    def test_two_that_saw_the_same_free_slot_do_not_both_get_it(
        self, make_shop: MakeShop, url: str, way: str
    ) -> None:
        shops = [make_shop(url), make_shop(url)]
        shops[0].add("w1", slots=1, cores=4)
        for shop in shops:
            # It looks now, and its clock stands still.
            shop.fleet.submitter.route("shop.unknown")
        send: dict[str, Callable[[Shop], object]] = {
            "delay": lambda shop: shop.pay.delay(1),
            "submit": lambda shop: shop.fleet.submit(shop.pay, (1,)),
            "submit_many": lambda shop: shop.fleet.submit_many(shop.pay, [(1,), (2,)]),
        }
        for shop in shops:
            send[way](shop)
        shop = shops[0]
        more = 2 if way == "submit_many" else 0
        assert shop.depths() == {W1: 1, "celery": 1 + more}
        for queue in (W1, "celery"):
            for message in shop.sent(queue):
                assert message["properties"]["delivery_info"]["routing_key"] == queue

    def test_a_producer_of_the_user_goes_on_publishing_to_its_own_exchange(
        self, shop: Shop
    ) -> None:
        shop.add("w1", **ROOMY)
        mine = Exchange("mine", type="topic")
        with shop.app.connection_for_write() as connection:
            Queue("mine", mine, routing_key="#")(connection).declare()
            producer = Producer(connection, exchange=mine)
            for n in range(2):
                shop.pay.apply_async((n,), producer=producer)
        assert shop.depths() == {"mine": 2}

    def test_priority_is_kept(self, shop: Shop) -> None:
        shop.add("w1")
        shop.pay.apply_async((1,), priority=6)
        assert shop.depths() == {f"{W1}\x06\x166": 1}
        assert len(shop.sent(W1, priority=6)) == 1

    def test_a_key_prefix_is_kept(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, {"broker_transport_options": {"global_keyprefix": "s:"}})
        shop.add("w1")
        shop.pay.delay()
        assert shop.depths() == {f"s:{W1}": 1}

    def test_no_fleet_is_plain_celery(self, shop: Shop) -> None:
        shop.pay.delay()
        assert shop.depths() == {"celery": 1}
        [message] = shop.sent("celery")
        assert message["headers"]["nxs"]["why"] == placement.SHARED_EMPTY

    @pytest.mark.parametrize("state", [s for s in State if s not in ("ACTIVE", "DEGRADED")])
    def test_an_instance_that_may_get_no_work_gets_none(self, shop: Shop, state: State) -> None:
        shop.add("w1", state=state)
        shop.pay.delay()
        assert shop.depths() == {"celery": 1}

    def test_an_instance_of_another_fleet_gets_none(self, shop: Shop, url: str) -> None:
        add_instance(new_store(url, fleet="other"), "w1")
        shop.pay.delay()
        assert shop.depths() == {"celery": 1}

    def test_the_task_carries_where_it_was_placed_and_why(self, shop: Shop) -> None:
        shop.add("w1", load_avg=1.0, cores=4)
        before = json.loads(json.dumps(shop.fleet.explain("shop.pay").placement.score))
        shop.pay.delay()
        [message] = shop.sent(W1)
        assert message["headers"]["nxs"] == {
            "to": "w1",
            "score": round(before, 4),
            "why": placement.DIRECT_BEST,
            "at": shop.clock.now(),
        }


class TestTheUserDecides:
    @pytest.mark.parametrize("queue", ["mine", Queue("mine")])
    def test_by_the_queue_of_a_call(self, shop: Shop, queue: str | Queue) -> None:
        shop.add("w1")
        shop.pay.apply_async((1,), queue=queue)
        assert shop.depths() == {"mine": 1}
        assert "nxs" not in shop.sent("mine")[0]["headers"]

    @pytest.mark.filterwarnings(r"ignore:\s*The 'queue' task attribute is deprecated")
    def test_by_the_queue_of_a_task(self, shop: Shop) -> None:
        shop.add("w1")
        shop.task("shop.mail", queue="mails").delay()
        assert shop.depths() == {"mails": 1}

    @pytest.mark.parametrize(
        "routes",
        [
            {"shop.*": {"queue": "routed"}},
            [lambda name, *_, **__: "routed" if name == "shop.pay" else None],
        ],
        ids=["table", "function"],
    )
    def test_by_task_routes(self, make_shop: MakeShop, url: str, routes: Any) -> None:
        shop = make_shop(url, {"task_routes": routes})
        shop.add("w1")
        shop.pay.delay()
        assert shop.depths() == {"routed": 1}

    def test_what_task_routes_leave_open_is_placed(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, {"task_routes": {"other.*": {"queue": "routed"}}})
        shop.add("w1")
        shop.pay.delay()
        assert shop.depths() == {W1: 1}

    @pytest.mark.parametrize("options", [{"exchange": "ours"}, {"routing_key": "ours.pay"}])
    def test_by_exchange_or_routing_key(self, shop: Shop, options: dict[str, str]) -> None:
        shop.add("w1")
        plain = Celery("plain", broker=shop.fleet.runtime.broker_url, set_as_current=False)
        expected = plain.amqp.router.route(dict(options), "shop.pay")
        assert shop.app.amqp.router.route(dict(options), "shop.pay") == expected


class TestControl:
    def test_control_tasks_go_to_their_queue(self, shop: Shop) -> None:
        shop.add("w1")
        shop.app.send_task("nxs.control.lifecycle")
        shop.app.tasks["nxs.control.record"].apply_async()
        assert shop.depths() == {CONTROL: 2}
        info = shop.sent(CONTROL)[0]["properties"]["delivery_info"]
        assert (info["exchange"], info["routing_key"]) == ("", CONTROL)

    def test_each_fleet_has_its_own(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, fleet="shop")
        shop.app.send_task("nxs.control.lifecycle")
        assert shop.depths() == {Keys("shop").control_queue(): 1}
        assert shop.depths() != {CONTROL: 1}

    def test_an_app_without_a_fleet_has_no_control_tasks(self, shop: Shop) -> None:
        plain = Celery("plain", set_as_current=False)
        assert [name for name in plain.tasks if name.startswith("nxs.")] == []
        assert "nxs.control.lifecycle" in shop.app.tasks


class TestNoBindings:
    def test_own_queues_and_the_control_queue_are_bound_to_nothing(self, shop: Shop) -> None:
        shop.add("w1", slots=1)
        shop.pay.delay()
        shop.pay.delay()
        shop.app.send_task("nxs.control.lifecycle")
        shop.pay.apply_async((1,), queue=W1, retries=1)
        shop.pay.apply_async((1,), queue="mine")
        assert shop.depths() == {W1: 1, "celery": 2, CONTROL: 1, "mine": 1}
        assert shop.bindings() == {"celery", "mine"}


class TestRetry:
    """`Task.retry` publishes with the queue that the task came from."""

    def test_a_placed_task_is_placed_anew(self, shop: Shop) -> None:
        shop.add("w1", slots=1, running=1)
        shop.store.client.hset(shop.store.keys.inflight("w1", 1), "tag", "x")
        shop.add("w2")
        shop.pay.apply_async((1,), queue=W1, retries=1)
        assert shop.depths() == {W2: 1}
        assert shop.sent(W2)[0]["headers"]["nxs"]["to"] == "w2"

    def test_a_placed_task_finds_no_instance_any_more(self, shop: Shop) -> None:
        shop.add("w1", state=State.GONE)
        shop.pay.apply_async((1,), queue=W1, retries=1)
        assert shop.depths() == {"celery": 1}

    def test_by_celery_itself(self, shop: Shop) -> None:
        shop.add("w1")
        shop.pay.delay(7)
        [message] = shop.sent(W1)
        shop.store.client.delete(W1)
        shop.store.transition(
            Transition(
                instance="w1",
                epoch=1,
                source=State.ACTIVE,
                target=State.GONE,
                event=Event.SILENT_CLOSED,
                reason="gone",
            )
        )
        shop.add("w2")
        shop.clock.advance(1.0)
        context = {**message["headers"], "args": (7,), "kwargs": {}, "called_directly": False}
        shop.pay.push_request(**context, delivery_info=message["properties"]["delivery_info"])
        try:
            shop.pay.retry(throw=False, countdown=1)
        finally:
            shop.pay.pop_request()
        assert shop.depths() == {W2: 1}
        [again] = shop.sent(W2)
        assert again["headers"]["id"] == message["headers"]["id"]
        assert (again["headers"]["retries"], again["headers"]["nxs"]["to"]) == (1, "w2")

    def test_a_control_task_stays_one(self, shop: Shop) -> None:
        shop.add("w1")
        shop.app.send_task("nxs.control.lifecycle", queue=CONTROL, retries=1)
        assert shop.depths() == {CONTROL: 1}

    def test_a_task_of_the_control_queue_is_not_placed(self, shop: Shop) -> None:
        shop.add("w1")
        shop.pay.apply_async((1,), queue=CONTROL)
        assert shop.depths() == {CONTROL: 1}


class TestView:
    def test_own_placements_count_between_two_looks(self, shop: Shop) -> None:
        shop.add("w1", slots=2)
        for _ in range(3):
            shop.pay.delay()
        assert shop.depths() == {W1: 2, "celery": 1}

    def test_and_after_the_next_look_what_waits_counts(self, shop: Shop) -> None:
        shop.add("w1", slots=2)
        for _ in range(4):
            shop.pay.delay()
            shop.clock.advance(1.0)
        assert shop.depths() == {W1: 2, "celery": 2}

    def test_one_that_was_placed_just_now_and_is_not_yet_written_counts(self, shop: Shop) -> None:
        shop.add("w1", slots=1)
        route = shop.app.amqp.router.route
        shop.add("w2", slots=1)
        assert route({}, "shop.pay")["queue"].name == W1
        shop.clock.advance(0.95)
        assert route({}, "shop.pay")["queue"].name == W2
        shop.clock.advance(0.06)  # the next look: w2's is 0.06 s old, w1's never came
        assert route({}, "shop.pay")["queue"].name == W1
        assert route({}, "shop.pay")["queue"].name == "celery"

    @pytest.mark.parametrize(("age", "queue"), [(2.9, "celery"), (3.0, W1)])
    def test_a_look_is_as_old_as_the_setting_allows(
        self, make_shop: MakeShop, url: str, age: float, queue: str
    ) -> None:
        shop = make_shop(url, view_max_age=3.0)
        shop.pay.delay()
        shop.add("w1")
        shop.store.client.delete("celery")
        shop.clock.advance(age)
        shop.pay.delay()
        assert shop.depths() == {queue: 1}

    def test_an_instance_that_falls_silent_gets_no_more(self, shop: Shop) -> None:
        shop.add("w1")
        key = shop.store.keys.instance("w1")
        shop.store.client.hset(key, "beat_at", shop.store.snapshot().taken_at - 15.5)
        shop.pay.delay()
        assert shop.depths() == {"celery": 1}
        beat(shop.store, "w1", 1, slots=2)
        shop.clock.advance(1.0)
        shop.pay.delay()
        assert shop.depths() == {"celery": 1, W1: 1}

    def test_a_bad_record_breaks_no_publish(self, shop: Shop) -> None:
        shop.add("w1")
        shop.store.client.hset(shop.store.keys.instance("w1"), "load", "{")
        shop.pay.delay()


class TestBrokerDown:
    def queue_of(self, shop: Shop) -> str:
        return str(shop.app.amqp.router.route({}, "shop.pay")["queue"].name)

    def test_the_router_goes_on_without_a_view_and_says_so_once(
        self, make_shop: MakeShop, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = make_shop(own_server.url)
        shop.add("w1")
        assert self.queue_of(shop) == W1
        own_server.kill()
        for _ in range(3):
            shop.clock.advance(1.0)
            assert [self.queue_of(shop), self.queue_of(shop)] == ["celery", "celery"]
        warnings = [r for r in caplog.records if r.name == "nxs_tasks.view"]
        assert [r.levelname for r in warnings] == ["WARNING"]
        assert "no view of the fleet" in warnings[0].getMessage()
        assert own_server.url in warnings[0].getMessage()

        own_server.start()
        shop.clock.advance(0.99)
        assert self.queue_of(shop) == "celery"
        shop.clock.advance(0.02)
        assert self.queue_of(shop) == W1

        own_server.kill()
        shop.clock.advance(1.0)
        assert self.queue_of(shop) == "celery"
        assert len([r for r in caplog.records if r.name == "nxs_tasks.view"]) == 2

    def test_a_broker_that_does_not_answer_is_asked_once_in_a_while(
        self, make_shop: MakeShop
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
            shop = make_shop(url, broker_timeout=0.05)

            def calls() -> int:
                count = 0
                while ready(silent):
                    silent.accept()[0].close()
                    count += 1
                return count

            assert [self.queue_of(shop) for _ in range(5)] == ["celery"] * 5
            first = calls()
            shop.clock.advance(0.9)
            self.queue_of(shop)
            assert (first > 0, calls()) == (True, 0)
            shop.clock.advance(0.2)
            self.queue_of(shop)
            assert calls() == first

    def test_samples_that_cannot_be_kept_break_nothing(
        self, make_shop: MakeShop, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = make_shop(own_server.url, placement_sample=1)
        shop.add("w1")
        submitter = shop.fleet.submitter
        submitter.route("shop.pay", options={})
        own_server.kill()
        submitter.on_publish("shop.pay", {"id": "t-1"})
        assert "1 sampled placements are not kept" in caplog.text


class TestSamples:
    def test_all_of_them(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, placement_sample=1)
        shop.add("w1", slots=1, load_avg=0.0, cores=4)
        shop.add("w2", slots=1, load_avg=2.0, cores=4)
        tasks = [shop.pay.delay() for _ in range(3)]
        first, second, third = shop.placed()
        assert [r.task_id for r in (first, second, third)] == [t.id for t in tasks]
        assert [r.instance for r in (first, second, third)] == ["w1", "w2", None]
        assert (third.score, third.reason) == (None, placement.SHARED_BUSY)
        assert (first.task, first.at) == ("shop.pay", shop.clock.now())
        assert first.reason == placement.DIRECT_BEST
        assert first.score is not None
        assert [(c["instance"], c["why_not"]) for c in first.candidates] == [
            ("w1", ""),
            ("w2", f"ranks {second.score:.6f}, below {first.score:.6f}"),
        ]
        assert first.candidates[0]["score"] == round(first.score, 4)
        assert first.candidates[1]["terms"]["cpu"] == 0.5
        assert first.candidates[1]["terms"]["memory"] is None
        assert {c["instance"]: c["why_not"] for c in second.candidates} == {
            "w2": "",
            "w1": "no free slot",
        }
        assert {c["why_not"] for c in third.candidates} == {"no free slot"}

    def test_the_chosen_one_comes_first_whatever_its_score(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop = make_shop(url, placement_sample=1)
        add_instance(shop.store, "w1", slots=1, running=1, load_avg=4.0, cores=4)
        hold = shop.store.keys.inflight("w1", 1)
        shop.store.client.hset(hold, "tag", "x")
        add_instance(shop.store, "w2", tasks=("other",), load_avg=0.0, cores=4)
        shop.pay.delay()
        [record] = shop.placed()
        assert (record.instance, record.reason) == ("w1", placement.DIRECT_ONLY)
        assert [c["instance"] for c in record.candidates] == ["w1", "w2"]
        assert record.candidates[1]["why_not"] == "does not register this task"

    def test_where_the_user_decided_there_is_no_decision(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop = make_shop(url, placement_sample=1)
        shop.add("w1")
        shop.pay.apply_async((1,), queue="mine")
        shop.app.send_task("nxs.control.lifecycle")
        assert shop.placed() == []

    def test_none_of_them(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, placement_sample=0)
        shop.add("w1")
        for _ in range(5):
            shop.pay.delay()
            shop.clock.advance(1.0)
        shop.fleet.submitter.flush()
        assert shop.placed() == []

    def test_a_share_of_them_waits_for_the_next_look(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, placement_sample=1 - 1e-9)
        shop.add("w1", **ROOMY)
        tasks = [shop.pay.delay() for _ in range(3)]
        assert [r.task_id for r in shop.placed()] == [tasks[0].id]
        shop.clock.advance(1.0)
        tasks.append(shop.pay.delay())
        assert [r.task_id for r in shop.placed()] == [t.id for t in tasks]
        tasks.append(shop.pay.delay())
        shop.fleet.submitter.flush()
        assert [r.task_id for r in shop.placed()] == [t.id for t in tasks]

    def test_ten_candidates_are_kept_and_the_best_is_among_them(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop = make_shop(url, placement_sample=1)
        for n in range(14):
            shop.add(f"w{n:02}", load_avg=float(20 - n), cores=20)
        shop.pay.delay()
        [record] = shop.placed()
        assert len(record.candidates) == 10
        assert record.instance == record.candidates[0]["instance"] == "w13"


class TestManyAtOnce:
    def test_threads_never_place_more_than_there_are_slots(self, shop: Shop) -> None:
        for n in range(2):
            shop.add(f"w{n}", slots=2)
        start = threading.Barrier(8)

        def submit() -> None:
            start.wait()
            for _ in range(200):
                shop.app.send_task("shop.pay", ignore_result=True)

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shop.depths() == {W0: 2, W1: 2, "celery": 1596}
        for queue in (W0, W1, "celery"):
            to = {m["headers"]["nxs"]["to"] for m in shop.sent(queue)}
            assert to == {None if queue == "celery" else queue[-2:]}

    def test_threads_that_interrupt_each_other_at_every_step_count_right(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop = make_shop(url, max_queue=10_000)
        shop.add("w1", slots=400)
        route = shop.app.amqp.router.route
        start = threading.Barrier(8)
        direct: list[str] = []

        def submit() -> None:
            start.wait()
            for _ in range(200):
                direct.append(route({}, "shop.pay")["queue"].name)

        threads = [threading.Thread(target=submit) for _ in range(8)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert Counter(direct) == {W1: 400, "celery": 1200}

    def test_a_fork_places_with_a_lock_and_a_connection_of_its_own(self, shop: Shop) -> None:
        shop.add("w1", slots=2)
        submitter = shop.fleet.submitter

        def look() -> tuple[str, int]:
            queue = shop.app.amqp.router.route({}, "shop.pay")["queue"].name
            return queue, int(connection_id(shop.fleet.runtime.store()))

        assert look()[0] == W1
        # As if another thread were placing at the moment of the fork: it is not there in the child.
        with submitter._lock:
            answer = in_fork(look)
        queue, child_connection = answer
        assert queue == W1
        _, parent_connection = look()
        assert child_connection != parent_connection
        # What the child placed is its own: here it was the second and last slot.
        assert look()[0] == "celery"


def connection_id(store: FleetStore) -> int:
    return int(store.client.client_id())


def in_fork(work: Callable[[], Any], deadline_s: float = 10.0) -> Any:
    """What `work` returns in a forked child; fails if it does not come back in time."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writable, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writable)
    try:
        if not ready(readable, wait_ms=int(deadline_s * 1000)):
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the child does not come back")
        with os.fdopen(readable) as answer:
            return json.load(answer)
    finally:
        os.waitpid(pid, 0)
