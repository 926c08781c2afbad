"""`fleet.submit()` and `fleet.submit_many()` on a real server; what is sent is read from its lists.

That each message is what Celery writes is proven in test_encoding.py.
"""

from __future__ import annotations

import json
import os
import threading
from base64 import b64decode
from typing import Any

import pytest
from kombu import Exchange, Queue

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import OptionError
from nxs_tasks.policy.fleet import placement
from nxs_tasks.store import Keys
from nxs_tasks.submission.batches import counts
from nxs_tasks.submission.outcome import SubmitOutcome
from nxs_tasks.submission.stream import Stream
from nxs_tasks.submission.writer import BATCH
from tests.conftest import Server
from tests.integration.submission_shop import MakeShop, Shop

pytest_plugins = ["tests.integration.submission_fixtures"]


@pytest.fixture
def shop(submission_shop: Shop) -> Shop:
    """Under this name others know a live one."""
    return submission_shop


KEYS = Keys("default")
W1, W2 = KEYS.own_queue("w1"), KEYS.own_queue("w2")
ACCEPTED, REJECTED = SubmitOutcome.ACCEPTED, SubmitOutcome.REJECTED


class TestOne:
    def test_the_answer_says_what_became_of_it(self, shop: Shop) -> None:
        found = shop.fleet.submit(shop.pay, (1,), {"how": "cash"})
        assert (found.outcome, found.queue) == (ACCEPTED, "celery")
        assert found.reason == placement.SHARED_EMPTY
        [message] = shop.sent("celery")
        assert message["headers"]["id"] == found.id
        assert json.loads(b64decode(message["body"]))[:2] == [[1], {"how": "cash"}]

    def test_it_is_placed_as_delay_is(self, shop: Shop) -> None:
        shop.add("w1", slots=2, load_avg=1.0, cores=4)
        found = shop.fleet.submit("shop.pay", (1,))
        assert (found.queue, found.reason) == (W1, placement.DIRECT_BEST)
        shop.pay.delay(2)
        first, second = shop.sent(W1)
        assert first["properties"]["delivery_info"] == {"exchange": "", "routing_key": W1}
        header = first["headers"]["nxs"]
        assert header["to"] == "w1"
        assert header["at"] == shop.clock.now()
        assert header.keys() == second["headers"]["nxs"].keys()
        assert header["score"] > second["headers"]["nxs"]["score"], "the first one counts"
        assert shop.fleet.submit(shop.pay, (3,)).queue == "celery", "both slots are taken"

    @pytest.mark.parametrize("queue", ["mine", Queue("mine")], ids=["name", "object"])
    def test_the_user_s_queue_is_kept(self, shop: Shop, queue: Any) -> None:
        shop.add("w1")
        found = shop.fleet.submit(shop.pay, (1,), queue=queue)
        assert (found.outcome, found.queue) == (ACCEPTED, "mine")
        assert "nxs" not in shop.sent("mine")[0]["headers"]

    @pytest.mark.parametrize(
        "routes",
        [{"shop.*": {"queue": "routed"}}, [lambda name, *_, **__: "routed"]],
        ids=["table", "router"],
    )
    def test_the_user_s_routes_come_first(self, make_shop: MakeShop, url: str, routes: Any) -> None:
        shop = make_shop(url, {"task_routes": routes})
        shop.add("w1")
        assert shop.fleet.submit(shop.pay, (1,)).queue == "routed"
        assert shop.fleet.submit(shop.pay, (1,), queue="mine").queue == "mine"
        assert shop.depths() == {"routed": 1, "mine": 1}

    def test_what_the_routes_leave_open_is_placed(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, {"task_routes": {"other.*": {"queue": "routed"}}})
        shop.add("w1")
        assert shop.fleet.submit(shop.pay, (1,)).queue == W1

    def test_an_own_queue_is_a_choice_of_the_fleet_and_made_anew(self, shop: Shop) -> None:
        shop.add("w2")
        assert shop.fleet.submit(shop.pay, (1,), queue=W1).queue == W2

    def test_a_control_task_goes_to_its_queue(self, shop: Shop) -> None:
        found = shop.fleet.submit("nxs.control.lifecycle")
        assert "by Celery itself" in found.reason
        assert shop.depths() == {KEYS.control_queue(): 1}

    def test_priority_and_eta(self, shop: Shop) -> None:
        shop.fleet.submit(shop.pay, (1,), priority=6, countdown=60)
        [message] = shop.sent("celery", priority=6)
        assert message["headers"]["eta"] is not None

    def test_a_placement_that_is_sampled_is_kept(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, placement_sample=1.0)
        shop.add("w1")
        found = shop.fleet.submit(shop.pay, (1,))
        [record] = shop.placed()
        assert (record.task_id, record.instance) == (found.id, "w1")

    def test_always_eager_runs_it_here(self, shop: Shop) -> None:
        ran: list[int] = []

        @shop.app.task(name="shop.eager", shared=False)
        def eager(n: int) -> None:
            ran.append(n)

        shop.fleet.submit(eager, (1,))
        shop.app.conf.task_always_eager = True
        found = shop.fleet.submit(eager, (2,))
        assert (found.outcome, ran) == (ACCEPTED, [2])
        assert "task_always_eager" in found.reason
        shop.app.conf.task_always_eager = False
        shop.fleet.submit(eager, (3,))
        assert (ran, shop.orders("celery")) == ([2], [1, 3])

    def test_later_changes_of_the_app_are_heeded(self, shop: Shop) -> None:
        shop.fleet.submit(shop.pay, (1,))
        shop.app.conf.task_send_sent_event = True
        shop.app.conf.task_ignore_result = True
        shop.app.conf.update(task_routes={"shop.*": {"queue": "routed"}})
        assert shop.fleet.submit(shop.pay, (2,)).queue == "routed"

    def test_from_many_threads(self, shop: Shop) -> None:
        shop.fleet.submit(shop.pay, (0,))
        named: dict[int, str] = {}

        def some(thread: int) -> None:
            named[thread] = shop.app.thread_oid
            for n in range(20):
                shop.fleet.submit(shop.pay, (thread * 100 + n,))

        threads = [threading.Thread(target=some, args=(n,)) for n in range(1, 21)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = list(zip(shop.orders("celery"), shop.sent("celery"), strict=True))[1:]
        assert len(found) == 400
        for number in range(1, 21):
            mine = [n for n, _ in found if n // 100 == number]
            assert mine == [100 * number + n for n in range(20)], "its own order is kept"
            replies = {m["properties"]["reply_to"] for n, m in found if n // 100 == number}
            assert replies == {named[number]}

    def test_routers_after_that_of_the_fleet_are_asked(self, shop: Shop) -> None:
        shop.app.conf.task_routes = [*shop.app.conf.task_routes, {"shop.*": {"queue": "late"}}]
        shop.add("w1", slots=1)
        assert "by Celery itself" in shop.fleet.submit(shop.pay, (1,)).reason
        shop.fleet.submit(shop.pay, (2,))
        assert shop.depths() == {W1: 1, "late": 1}

    def test_a_fork_writes_under_names_of_its_own(self, shop: Shop) -> None:
        shop.fleet.submit(shop.pay, (0,))
        child = os.fork()
        if child == 0:
            shop.fleet.submit_many(shop.pay, [(n,) for n in range(100, 120)])
            os._exit(0)
        shop.fleet.submit_many(shop.pay, [(n,) for n in range(20)])
        assert os.waitpid(child, 0)[1] == 0
        assert sorted(shop.orders("celery")) == [0, *range(20), *range(100, 120)]
        origins = {m["headers"]["origin"].split("@")[0] for m in shop.sent("celery")}
        assert origins == {f"gen{os.getpid()}", f"gen{child}"}


class TestMany:
    def test_each_has_an_answer_in_order(self, shop: Shop) -> None:
        result = shop.fleet.submit_many(shop.pay, [(n,) for n in range(3)])
        assert [s.outcome for s in result] == [ACCEPTED] * 3
        assert [m["headers"]["id"] for m in shop.sent("celery")] == list(result.ids)
        assert shop.orders("celery") == [0, 1, 2]

    def test_order_is_kept_over_many_writes(self, shop: Shop) -> None:
        count = 2 * BATCH + 7
        shop.fleet.submit(shop.pay, (0,))
        before = shop.writes()
        result = shop.fleet.submit_many(shop.pay, ((n,) for n in range(count)), priority=3)
        assert shop.writes() - before == 3
        assert result.counts() == {ACCEPTED: count}
        assert shop.orders("celery", priority=3) == list(range(count))

    def test_a_batch_is_placed_as_one(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, placement_sample=1.0)
        shop.add("w1", slots=2)
        shop.add("w2", slots=3)
        before = shop.writes()
        result = shop.fleet.submit_many(shop.pay, [(n,) for n in range(9)])
        assert shop.depths() == {W1: 2, W2: 3, "celery": 4}
        by_queue = {q: [n for n, s in enumerate(result) if s.queue == q] for q in shop.depths()}
        assert {q: shop.orders(q) for q in shop.depths()} == by_queue
        # One look at the fleet, one write, one for the samples.
        assert shop.writes() - before <= 3
        records = {r.task_id: r for r in shop.placed()}
        for submission in result:
            assert records[submission.id].reason == submission.reason
        for queue, instance in ((W1, "w1"), (W2, "w2"), ("celery", None)):
            assert {m["headers"]["nxs"]["to"] for m in shop.sent(queue)} == {instance}

    def test_alone_and_in_a_batch_they_are_placed_alike(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop, other = make_shop(url), make_shop(url)
        for n, load in enumerate((0.5, 2.0, 1.0)):
            shop.add(f"w{n}", slots=2, load_avg=load, cores=4)
        alone = [shop.fleet.submit(shop.pay, (n,)) for n in range(8)]
        shop.store.client.delete(*shop.depths())
        batch = other.fleet.submit_many(other.pay, [(n,) for n in range(8)])
        assert [(s.queue, s.reason) for s in batch] == [(s.queue, s.reason) for s in alone]

    def test_what_is_placed_and_not_yet_written_counts_at_the_next_look(self, shop: Shop) -> None:
        shop.add("w1", slots=2)
        place = shop.fleet.submitter.place_many
        assert [p.instance for p in place("shop.pay", [], [], 0.0)] == []
        shop.clock.advance(0.95)
        assert [p.instance for p in place("shop.pay", [(), ()], ["a", "b"], 0.0)] == ["w1", "w1"]
        shop.clock.advance(0.06)  # the next look does not see them in the queue
        assert [p.instance for p in place("shop.pay", [()], ["c"], 0.0)] == [None]

    def test_large_messages_go_in_smaller_writes(self, shop: Shop) -> None:
        shop.fleet.submit(shop.pay, (0,))
        shop.store.client.delete("celery")
        before = shop.writes()
        shop.fleet.submit_many(shop.pay, [(n, "x" * 300_000) for n in range(10)])
        assert shop.writes() - before >= 3
        assert shop.orders("celery") == list(range(10))

    def test_none(self, shop: Shop) -> None:
        assert list(shop.fleet.submit_many(shop.pay, [])) == []
        assert shop.depths() == {}

    def test_a_router_sees_the_arguments_of_each(self, make_shop: MakeShop, url: str) -> None:
        def by_parity(name: str, args: Any, *_: Any, **__: Any) -> str | None:
            return {0: "even", 1: "odd"}.get(args[0] % 3)

        shop = make_shop(url, {"task_routes": [by_parity]})
        shop.add("w1", slots=1)
        result = shop.fleet.submit_many(shop.pay, [(n,) for n in range(9)])
        assert {q: shop.orders(q) for q in shop.depths()} == {
            "even": [0, 3, 6],
            "odd": [1, 4, 7],
            W1: [2],
            "celery": [5, 8],
        }
        assert [s.queue for s in result][:3] == ["even", "odd", W1]

    def test_one_that_cannot_be_encoded_is_rejected_and_the_others_are_sent(
        self, shop: Shop
    ) -> None:
        result = shop.fleet.submit_many(shop.pay, [(1,), (object(),), (3,)])
        assert [s.outcome for s in result] == [ACCEPTED, REJECTED, ACCEPTED]
        assert "cannot be encoded: Object of type object is not JSON" in result[1].reason
        assert shop.orders("celery") == [1, 3]
        assert [m["headers"]["id"] for m in shop.sent("celery")] == [result[0].id, result[2].id]

    def test_what_only_celery_can_send_is_sent_by_it(self, shop: Shop) -> None:
        result = shop.fleet.submit_many(shop.pay, [(1,), (2,)], retry=False)
        assert ["by Celery itself" in s.reason for s in result] == [True, True]
        assert [m["headers"]["id"] for m in shop.sent("celery")] == list(result.ids)

    def test_one_that_celery_cannot_encode_is_rejected_and_the_others_are_sent(
        self, shop: Shop
    ) -> None:
        result = shop.fleet.submit_many(shop.pay, [(1,), (object(),), (3,)], retry=False)
        assert [s.outcome for s in result] == [ACCEPTED, REJECTED, ACCEPTED]
        assert "cannot be encoded: Object of type object is not JSON" in result[1].reason
        assert shop.orders("celery") == [1, 3]


def test_a_unique_key_needs_a_task_that_acknowledges_late(shop: Shop) -> None:
    shop.pay.acks_late = False
    for task in (shop.pay, "shop.pay"):
        with pytest.raises(OptionError, match=r"shop\.pay has acks_late=False"):
            shop.fleet.submit(task, (1,), unique_key="k")
    assert shop.depths() == {}


class TestBrokerAway:
    def test_what_celery_sends_is_kept_too_and_that_is_said(
        self, make_shop: MakeShop, own_server: Server
    ) -> None:
        shop = make_shop(own_server.url)
        own_server.kill()
        one = shop.fleet.submit(shop.pay, (1,), retry=False)
        assert one.outcome is SubmitOutcome.SPOOLED
        assert "no Redis or Valkey server answers" in one.reason
        assert counts(shop.fleet.outbox.spool) == {(shop.fleet.outbox.broker, False): 1}

    def test_it_is_kept_and_the_caller_does_not_wait(
        self, make_shop: MakeShop, own_server: Server
    ) -> None:
        shop = make_shop(own_server.url)
        shop.fleet.submit(shop.pay, (0,))
        own_server.kill()
        one = shop.fleet.submit(shop.pay, (1,))
        many = shop.fleet.submit_many(shop.pay, [(n,) for n in range(2, 2 * BATCH)])
        assert one.outcome is SubmitOutcome.SPOOLED
        assert one.reason
        assert many.counts() == {SubmitOutcome.SPOOLED: 2 * BATCH - 2}
        own_server.start()
        assert wait_until(lambda: shop.depths().get("celery") == 2 * BATCH, 30.0), shop.depths()
        assert shop.orders("celery") == list(range(2 * BATCH))

    def test_after_a_write_that_is_kept_the_next_one_is_kept_too(
        self, make_shop: MakeShop, own_server: Server
    ) -> None:
        """Else the rest of a batch would be taken before what is still on its way."""
        shop = make_shop(own_server.url)
        shop.fleet.submit(shop.pay, (0,))
        stream = Stream(shop.fleet.outbox)
        own_server.kill()
        assert stream.send({"first": ["a"]}).outcome is SubmitOutcome.SPOOLED
        own_server.start()
        assert wait_until(lambda: not shop.fleet.runtime.breaker.open, 30.0)
        assert stream.send({"then": ["b"]}).outcome is SubmitOutcome.SPOOLED
        assert Stream(shop.fleet.outbox).send({"other": ["c"]}).outcome is ACCEPTED
        assert wait_until(lambda: {"first", "then"} <= shop.depths().keys(), 30.0)


def test_an_exchange_of_the_user_s_own(make_shop: MakeShop, url: str) -> None:
    mine = Exchange("mine", type="topic")
    shop = make_shop(url, {"task_queues": [Queue("celery"), Queue("all", mine, routing_key="#")]})
    shop.app.pool.acquire().close()
    found = shop.fleet.submit(shop.pay, (1,), queue="all")
    assert "topic exchange" in found.reason
    assert shop.depths() == {"all": 1}
