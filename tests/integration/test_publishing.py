"""What `delay()` writes by way of the outbox is what Celery and kombu write themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.signals import after_task_publish
from kombu import Exchange, Producer, Queue

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import SubmissionRejected
from nxs_tasks.submission.publishing import TaskSender
from tests.conftest import MakeApp, Server, new_store

#: Longest wait for a thread of ours. A deadline, not an expectation.
PATIENCE_S = 30.0
TOPIC = Exchange("events", type="topic")
CONF: dict[str, Any] = {
    "task_queues": [
        Queue("celery"),
        Queue("orders", TOPIC, routing_key="order.#"),
        Queue("all", TOPIC, routing_key="#"),
        Queue("short", expires=60.0),
        Queue("short2", queue_arguments={"x-expires": 50_000}),
    ],
    "task_routes": {"shop.plain": {"queue": "celery"}},
}


def name_task(app: Any) -> Any:
    @app.task(name="shop.pay", shared=False)
    def pay(*args: Any, **kwargs: Any) -> None: ...

    return pay


class Pair:
    """The same app with and without a fleet, on one server."""

    def __init__(self, make_app: MakeApp, url: str, conf: dict[str, Any]) -> None:
        self.store = new_store(url)
        self.stock: Any = Celery("shop", broker=url, backend=url, set_as_current=False)
        self.stock.conf.update(conf)
        self.fleet = make_app(url, conf)
        self.ours: Any = self.fleet.app
        self.tasks = {id(app): name_task(app) for app in (self.stock, self.ours)}

    def written(self, app: Any, submit: Callable[[Any, Any], Any]) -> dict[str, list[Any]]:
        """The messages in each list after a submission; taken out."""
        submit(app, self.tasks[id(app)])
        found: Any = sorted(self.store.client.scan_iter(_type="list"))
        lists = {}
        for key in found:
            raws: Any = self.store.client.lrange(key, 0, -1)
            lists[key] = [json.loads(raw) for raw in reversed(raws)]
            self.store.client.delete(key)
        return lists


@pytest.fixture
def pair(make_app: MakeApp, url: str) -> Pair:
    return Pair(make_app, url, CONF)


def alike(lists: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without what differs from one submission to the next, and our own header."""
    for messages in lists.values():
        for message in messages:
            headers, properties = message["headers"], message["properties"]
            headers.pop("nxs", None)
            assert properties.pop("delivery_tag")
            assert headers["id"] == properties["correlation_id"]
            for name in ("id", "root_id", "eta", "expires", "correlation_id", "reply_to"):
                for place in (headers, properties):
                    if place.get(name):
                        place[name] = "given"
    return lists


SUBMISSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "delay": lambda app, pay: pay.delay(1, "ü", card="x"),
    "send_task": lambda app, pay: app.send_task("shop.other", (1,), {"a": 2}),
    "priority": lambda app, pay: pay.apply_async((1,), priority=4),
    "priority of no use": lambda app, pay: pay.apply_async((1,), priority=99),
    "times": lambda app, pay: pay.apply_async((1,), countdown=60, expires=120),
    "headers": lambda app, pay: pay.apply_async((1,), headers={"mine": [1, {"a": None}]}),
    "links": lambda app, pay: pay.apply_async((1,), link=pay.s(2), link_error=pay.s(3)),
    "queue by name": lambda app, pay: pay.apply_async((1,), queue="mine"),
    "queue as an object": lambda app, pay: pay.apply_async((1,), queue=Queue("mine")),
    "reply_to": lambda app, pay: pay.apply_async((1,), reply_to="me"),
    "compression": lambda app, pay: pay.apply_async(("x" * 1000,), compression="zlib"),
    "pickle": lambda app, pay: pay.apply_async(({1, 2},), serializer="pickle"),
    "yaml": lambda app, pay: pay.apply_async(([1, 2],), serializer="yaml"),
    "transient": lambda app, pay: pay.apply_async((1,), delivery_mode="transient"),
    "extra properties": lambda app, pay: pay.apply_async((1,), message_id="m-1", user_id="u"),
    "routing key of a topic": lambda app, pay: pay.apply_async(
        (1,), queue="orders", routing_key="order.new"
    ),
    "topic exchange": lambda app, pay: pay.apply_async(
        (1,), exchange=TOPIC, routing_key="order.new", declare=app.amqp.queues.values()
    ),
    "retry policy": lambda app, pay: pay.apply_async((1,), retry=True, retry_policy={}),
}


@pytest.mark.parametrize("way", SUBMISSIONS)
def test_the_messages_are_the_same(pair: Pair, way: str) -> None:
    submit = SUBMISSIONS[way]
    stock = alike(pair.written(pair.stock, submit))
    ours = alike(pair.written(pair.ours, submit))
    assert stock
    assert ours == stock
    assert [list(m) for lists in ours.values() for m in lists] == [
        list(m) for lists in stock.values() for m in lists
    ]


def test_what_cannot_be_encoded_is_the_same_error(pair: Pair) -> None:
    errors = []
    for app in (pair.stock, pair.ours):
        with pytest.raises(Exception, match="not JSON serializable") as raised:
            pair.written(app, lambda app, pay: pay.delay(object()))
        errors.append(type(raised.value))
    assert errors[0] is errors[1]


def test_a_key_prefix_is_kept(make_app: MakeApp, url: str) -> None:
    conf = {"broker_transport_options": {"global_keyprefix": "s:", "priority_steps": [0, 5]}}
    pair = Pair(make_app, url, conf)
    for way in ("delay", "priority", "priority of no use"):
        stock = alike(pair.written(pair.stock, SUBMISSIONS[way]))
        assert alike(pair.written(pair.ours, SUBMISSIONS[way])) == stock
        assert all(key.startswith("s:celery") for key in stock)


@pytest.mark.parametrize(("queue", "longest"), [("short", 60_000), ("short2", 50_000)])
def test_a_queue_that_expires_begins_anew(pair: Pair, queue: str, longest: int) -> None:
    pay = pair.tasks[id(pair.ours)]
    pay.apply_async((1,), queue=queue, priority=3)
    key = f"{queue}\x06\x163"
    assert longest - 30_000 < int(pair.store.client.pttl(key)) <= longest
    pair.store.client.pexpire(key, 1000)
    pay.apply_async((1,), queue=queue, priority=3)
    assert int(pair.store.client.pttl(key)) > 1000


def test_bindings_are_declared_as_celery_declares_them(pair: Pair) -> None:
    found = []
    for app in (pair.stock, pair.ours):
        pair.tasks[id(app)].apply_async((1,), queue="mine")
        pair.tasks[id(app)].apply_async((1,), queue="orders")
        keys: Any = pair.store.client.scan_iter(match="_kombu.binding*")
        found.append({key: pair.store.client.smembers(key) for key in keys})
        pair.store.client.flushdb()
    assert found[0]
    assert found[0] == found[1]


def test_the_signals_are_sent(pair: Pair) -> None:
    seen = []

    def receive(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append((sender, headers["id"]))

    after_task_publish.connect(receive)
    try:
        result = pair.tasks[id(pair.ours)].delay(1)
    finally:
        after_task_publish.disconnect(receive)
    assert seen == [("shop.pay", result.id)]


def test_the_event_that_a_task_was_sent(make_app: MakeApp, url: str) -> None:
    pair = Pair(make_app, url, {"task_send_sent_event": True})
    seen: list[str] = []
    handlers = {"task-sent": lambda event: seen.append(event["uuid"])}
    with pair.ours.connection_for_read() as connection:
        receiver = pair.ours.events.Receiver(connection, handlers=handlers)
        options = {"limit": None, "timeout": PATIENCE_S, "wakeup": False}
        listener = threading.Thread(target=receiver.capture, kwargs=options)
        listener.start()
        client: Any = pair.store.client
        assert wait_until(
            lambda: client.pubsub_numpat() + len(client.pubsub_channels()), PATIENCE_S
        )
        result = pair.tasks[id(pair.ours)].delay(1)
        assert wait_until(lambda: bool(seen), PATIENCE_S)
        receiver.should_stop = True
        listener.join(PATIENCE_S)
    assert seen == [result.id]


class TestLeftAlone:
    @pytest.fixture
    def handed(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """What comes to the outbox."""
        seen: list[object] = []
        outbox, send = pair.fleet.outbox, pair.fleet.outbox.send

        def note(*args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return send(*args, **kwargs)

        monkeypatch.setattr(outbox, "send", note)
        return seen

    def test_what_celery_sends_comes_by(self, pair: Pair, handed: list[object]) -> None:
        pair.tasks[id(pair.ours)].delay(1)
        with pair.ours.producer_or_acquire() as producer:
            pair.tasks[id(pair.ours)].apply_async((1,), producer=producer)
        assert len(handed) == 2

    def test_a_producer_of_the_caller(self, pair: Pair, handed: list[object]) -> None:
        with pair.ours.connection_for_write() as connection:
            producer = Producer(connection)
            assert pair.written(
                pair.ours, lambda app, pay: pay.apply_async((1,), producer=producer)
            )["celery"]
        assert handed == []

    def test_a_connection_of_the_caller(self, pair: Pair, handed: list[object]) -> None:
        with pair.ours.connection_for_write() as connection:
            assert pair.written(
                pair.ours, lambda app, pay: pay.apply_async((1,), connection=connection)
            )["celery"]
        assert handed == []

    def test_a_batch(self, pair: Pair, handed: list[object]) -> None:
        def submit(app: Any, pay: Any) -> None:
            with app.producer_or_acquire() as producer, producer.batch():
                for n in range(3):
                    pay.apply_async((n,), producer=producer)
                assert pair.store.client.llen("celery") == 0

        assert len(pair.written(pair.ours, submit)["celery"]) == 3
        assert handed == []

    def test_another_app(self, pair: Pair) -> None:
        for tasks in pair.tasks.values():
            tasks.delay(1)
        assert isinstance(vars(pair.ours.amqp)["send_task_message"], TaskSender)
        assert not isinstance(pair.stock.amqp.send_task_message, TaskSender)


def test_nothing_is_asked_of_a_broker_that_is_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay = pair.tasks[id(pair.ours)]
    pay.delay(0)
    asked: list[object] = []
    monkeypatch.setattr(pair.ours, "connection_for_write", lambda **_: asked.append(1))
    monkeypatch.setattr(pair.fleet.outbox, "start", lambda: None)
    pair.fleet.outbox.trip("away")
    pay.apply_async((1,), queue="mine")
    with pytest.raises(SubmissionRejected, match="away"):
        pay.apply_async((1,), exchange="unknown", routing_key="x")
    assert asked == []


class TestNamedExchanges:
    def submit(self, pair: Pair) -> Any:
        pay = pair.tasks[id(pair.ours)]
        return pay.apply_async((1,), exchange=TOPIC.name, routing_key="order.new")

    @pytest.fixture
    def own(self, make_app: MakeApp, own_server: Server) -> Pair:
        pair = Pair(make_app, own_server.url, {**CONF})
        pair.fleet.outbox._share_s = 0.5
        return pair

    def test_where_it_leads_is_remembered(self, own: Pair, own_server: Server) -> None:
        own.written(own.ours, SUBMISSIONS["topic exchange"])
        own_server.kill()
        result = self.submit(own)
        own_server.start()
        own.fleet.outbox.drain()
        lists = own.written(own.ours, lambda app, pay: None)
        assert {k: [m["headers"]["id"] for m in v] for k, v in lists.items()} == {
            "orders": [result.id],
            "all": [result.id],
        }

    def test_where_nobody_knows_it_the_task_is_rejected(
        self, own: Pair, own_server: Server
    ) -> None:
        own_server.kill()
        with pytest.raises(SubmissionRejected, match="only the broker knows the queues"):
            self.submit(own)
        assert not own.fleet.outbox.spool.exists()

    def test_a_fanout_goes_to_all_that_listen_or_is_rejected(
        self, own: Pair, own_server: Server
    ) -> None:
        fan = Exchange("fan", type="fanout")
        queue = Queue("listeners", fan)
        pay = own.tasks[id(own.ours)]
        assert pay.apply_async((1,), queue=queue).id
        own_server.kill()
        with pytest.raises(SubmissionRejected):
            pay.apply_async((1,), queue=queue)
