"""The channel of a fleet on a real server: it takes, registers, settles, and waits to be told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import kombu
import pytest
from kombu import Consumer, Exchange, Producer, Queue

from nxs_tasks.errors import BrokerUnreachable
from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.store import connect
from nxs_tasks.store.shelves import Shelves
from nxs_tasks.store.token import parse
from nxs_tasks.transport.redis import Connection
from nxs_tasks.transport.tenure import Claimed
from tests.integration.claiming import OWN, MakeTaker, Taker, a_message, a_queue, shelve

pytest_plugins = ["tests.integration.claiming_fixtures"]


# taking and settling


def test_what_is_taken_is_registered_under_its_token(taker: Taker) -> None:
    raw = a_message(1)
    taker.store.client.lpush("celery", raw)
    assert taker.until_got(1) == ["1"]
    [(token, entry)] = taker.held().items()
    assert entry == (raw, "celery"), "byte for byte as it was"
    assert taker.got[0].delivery_tag == token
    assert parse(token) is not None
    index = taker.store.keys.inflight_index("w1@t", taker.epoch)
    found = taker.store.client.zrange(index, 0, -1, withscores=True)
    [(indexed, since)] = cast("list[tuple[str, float]]", found)
    assert indexed == token
    assert abs(since - taker.store.now()) < 60
    assert taker.waiting() == 0


def test_an_acknowledged_message_is_nowhere(taker: Taker) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    taker.got[0].ack()
    assert taker.held() == {}
    assert taker.waiting() == 0
    index = taker.store.keys.inflight_index("w1@t", taker.epoch)
    assert not taker.store.client.exists(index)


def test_a_rejected_message_is_dropped(taker: Taker) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    taker.got[0].reject()
    assert taker.held() == {}
    assert taker.waiting() == 0


@pytest.mark.parametrize("queue", ["celery", OWN])
def test_a_requeued_message_waits_at_the_end_of_the_shared_queue(taker: Taker, queue: str) -> None:
    taker.store.client.lpush(queue, a_message(1, queue=queue))
    taker.until_got(1)
    taker.store.client.lpush("celery", a_message(2))
    taker.got[0].requeue()
    assert taker.held() == {}
    [back, _] = [json.loads(raw) for raw in taker.store.client.lrange("celery", 0, -1)]
    assert back["headers"]["id"] == "1"
    assert back["headers"]["redelivered"] is True
    assert back["properties"]["delivery_info"]["routing_key"] == "celery"
    assert "nxs_lost" not in back["headers"], "nobody died"
    assert taker.until_got(3)[1:] == ["2", "1"]
    assert taker.got[2].delivery_tag != taker.got[0].delivery_tag


def test_what_was_taken_from_us_can_not_be_acknowledged(taker: Taker) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    taker.store.client.delete(taker.store.keys.inflight("w1@t", taker.epoch))
    taker.got[0].ack()
    assert taker.tenure.refused == 1
    assert taker.displaced == 1
    assert taker.tenure.settling() == set()


def test_losses_and_moves_are_no_business_of_the_task(taker: Taker) -> None:
    """A task that sends a message on copies its headers."""
    lost = [{"instance": "w9@t", "epoch": 1, "at": 1.0}]
    moved = {"from": "w9@t", "at": 1.0}
    taker.store.client.lpush("celery", a_message(1, nxs_lost=lost, nxs_moved=moved))
    taker.until_got(1)
    assert not {"nxs_lost", "nxs_moved"} & set(taker.got[0].headers)
    [(raw, _)] = taker.held().values()
    assert json.loads(raw)["headers"]["nxs_lost"] == lost


def test_oldest_first_within_a_priority_and_the_urgent_before_all(taker: Taker) -> None:
    wire = taker.store.wire
    for number, priority in enumerate([9, 0, 6, 3, 0, 9]):
        taker.store.client.lpush(wire.list_of("celery", priority), a_message(number))
    assert taker.until_got(6) == ["1", "4", "3", "2", "0", "5"]


def test_the_own_queue_is_first_and_the_others_take_turns(url: str, make_taker: MakeTaker) -> None:
    taker = make_taker(url, queues=(OWN, "celery", "video"))
    for queue in (OWN, "celery", "video"):
        for number in range(3):
            taker.store.client.lpush(queue, a_message(f"{queue[-5:]} {number}"))
    taken = [text.split()[0] for text in taker.until_got(9)]
    assert taken == ["/w1@t"] * 3 + ["celery"[-5:], "video"] * 3


def test_a_queue_that_nobody_consumes_any_more_keeps_its_messages(taker: Taker) -> None:
    taker.ask()
    taker.consumer.cancel_by_queue("celery")
    taker.ask()
    taker.store.client.lpush("celery", a_message(1))
    taker.store.client.lpush(OWN, a_message(2))
    assert taker.until_got(1) == ["2"]
    assert taker.waiting() == 1


def test_what_comes_for_a_cancelled_consumer_goes_back(taker: Taker) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.ask()
    taker.consumer.cancel_by_queue("celery")
    taker.drain(0.1)
    assert taker.got == []
    assert taker.held() == {}
    assert taker.waiting() == 1


# the gate


def test_what_the_gate_keeps_back_is_not_delivered(url: str, make_taker: MakeTaker) -> None:
    seen: list[Claimed] = []

    def gate(claimed: Claimed) -> bool:
        seen.append(claimed)
        return bool(claimed.message.headers["id"] != "1")

    taker = make_taker(url, gate=gate)
    raws = [a_message(1), a_message(2)]
    taker.store.client.lpush("celery", *raws)
    assert taker.until_got(1) == ["2"]
    assert [c.raw for c in seen] == raws
    assert [c.queue for c in seen] == ["celery", "celery"]
    assert taker.held_ids() == {"1", "2"}, "the gate says where to it goes; here nowhere"


def test_the_gate_is_told_when_something_is_cancelled_or_paused(
    url: str, make_taker: MakeTaker
) -> None:
    told: list[bool] = []

    def gate(claimed: Claimed) -> bool:
        told.append(claimed.intents)
        return True

    taker = make_taker(url, gate=gate)
    keys, client = taker.store.keys, taker.store.client
    client.lpush("celery", a_message(1))
    taker.until_got(1)
    client.zadd(keys.cancelled(), {"some-id": 1.0})
    client.lpush("celery", a_message(2))
    taker.until_got(2)
    client.delete(keys.cancelled())
    client.sadd(keys.paused_tasks(), "shop.nap")
    client.lpush("celery", a_message(3))
    taker.until_got(3)
    assert told == [False, True, True]


@pytest.mark.parametrize("error", [BrokerUnreachable("away"), ValueError("wrong"), KeyError("id")])
def test_a_gate_that_fails_ends_nothing(url: str, make_taker: MakeTaker, error: Exception) -> None:
    """A KeyError is a lost connection to kombu, and any other error would end the worker."""

    def gate(claimed: Claimed) -> bool:
        if claimed.message.headers["id"] == "1":
            raise error
        return True

    taker = make_taker(url, gate=gate)
    before = taker.channel
    taker.store.client.lpush("celery", a_message(1), a_message(2))
    assert taker.until_got(1) == ["2"]
    assert taker.channel is before
    aside = Shelves(taker.store).count(QUARANTINE)
    # Of what the broker did not say, nothing is known: it stays held, and is found and given back.
    assert (taker.held_ids(), aside) == (
        ({"1", "2"}, 0) if isinstance(error, BrokerUnreachable) else ({"2"}, 1)
    )


def test_what_nobody_can_start_is_put_into_quarantine(taker: Taker) -> None:
    def fail(message: Any) -> None:
        raise KeyError("what Celery did not expect")

    taker.consumer.on_message = fail
    raw = a_message(1)
    taker.store.client.lpush("celery", raw)
    shelves = Shelves(taker.store)
    taker.until(lambda: shelves.count(QUARANTINE) == 1, "it in quarantine")
    [entry] = shelves.entries(QUARANTINE)
    assert (entry.message, entry.task_id, entry.task) == (raw, "1", "shop.add")
    assert entry.reason == "cannot be started: KeyError"
    assert taker.held() == {}
    assert taker.channel.qos.can_consume()


# neighbours


def test_a_stock_consumer_takes_from_the_same_queue(url: str, make_taker: MakeTaker) -> None:
    taker = make_taker(url, queues=("celery",))
    with stock(url) as (connection, got):
        for number in range(10):
            taker.store.client.lpush("celery", a_message(number))
            if number % 2:
                taker.until_got(number // 2 + 1)
            else:
                connection.drain_events(timeout=5)
        assert taker.ids() == ["1", "3", "5", "7", "9"]
        assert [m.headers["id"] for m in got] == ["0", "2", "4", "6", "8"]
        assert taker.store.client.hlen("unacked") == 5
        assert taker.held_ids() == set(taker.ids())
        got[0].requeue()
        taker.got[0].requeue()
        assert sorted(taker.until_got(7)[5:]) == ["0", "1"]
        for message in (*got[1:], *taker.got[1:]):
            message.ack()
        assert taker.store.client.hlen("unacked") == 0
        assert taker.held() == {}


def test_without_a_tenure_it_is_what_kombu_made(url: str) -> None:
    """A control worker, and whoever else consumes in a process of an app with a fleet."""
    client = connect(url)
    client.config_resetstat()
    with consuming_from(Connection(url)) as (connection, got):
        client.lpush("celery", a_message(1))
        connection.drain_events(timeout=5)
        assert client.hlen("unacked") == 1
        assert parse(got[0].delivery_tag) is None
        got[0].requeue()
        connection.drain_events(timeout=5)
        got[1].ack()
        assert client.hlen("unacked") == 0
        commands = client.info("commandstats")
    assert commands["cmdstat_brpop"]["calls"] >= 2
    assert not {"cmdstat_eval", "cmdstat_evalsha", "cmdstat_client|tracking"} & set(commands)


def test_a_queue_that_has_no_tasks_is_read_as_kombu_reads_it(taker: Taker) -> None:
    """By a task, with a connection of its app: no gate, no token, and back if it is not done."""
    taker.tenure.has_tasks = lambda queue: queue in (OWN, "celery")
    taker.tenure.gate = lambda claimed: False
    channel = taker.connection.channel()
    mail: list[Any] = []
    Consumer(channel, [a_queue("mail")], on_message=mail.append).consume()
    taker.store.client.lpush("mail", a_message(1, queue="mail"), a_message(2, queue="mail"))
    taker.until(lambda: len(mail) >= 2, "its mail")
    assert [parse(message.delivery_tag) for message in mail] == [None, None]
    mail[0].ack()
    channel.close()
    [back] = taker.store.client.lrange("mail", 0, -1)
    assert json.loads(back)["headers"]["id"] == "2"
    assert taker.held() == {}


@pytest.mark.parametrize("closed", ["the channel", "the connection"])
def test_what_is_acknowledged_too_late_is_a_lost_connection_to_celery(
    taker: Taker, closed: str
) -> None:
    """As a control worker does, which has no tenure, while its server restarts."""
    taker.tenure.has_tasks = lambda queue: queue in (OWN, "celery")
    channel = taker.connection.channel()
    mail: list[Any] = []
    Consumer(channel, [a_queue("mail")], on_message=mail.append).consume()
    taker.store.client.lpush("mail", a_message(1, queue="mail"))
    taker.until(lambda: len(mail) == 1, "its mail")
    transport = channel.connection
    if closed == "the channel":
        channel.connection = None
    else:
        transport.client = None
    channel._pool = None
    with pytest.raises(ConnectionResetError):
        mail[0].ack()
    with pytest.raises(ConnectionResetError):
        channel.qos.restore_unacked_once()  # a close does it: kombu's own error ends the worker
    assert issubclass(ConnectionResetError, taker.connection.connection_errors)
    channel.connection, transport.client = transport, taker.connection


def test_a_channel_that_read_answers_before_takes_tasks(taker: Taker) -> None:
    """As Celery's does, which asks its neighbours first: BRPOP may still be on its way."""
    taker.consumer.cancel()
    channel = taker.connection.channel()
    answers = Consumer(channel, [a_queue("answers")], on_message=taker.got.append, no_ack=True)
    answers.consume()
    taker.connection.transport.cycle.on_poll_start()
    assert channel._in_poll, "it waits for an answer"
    answers.cancel()
    Consumer(channel, [a_queue("celery")], on_message=taker.got.append).consume()
    taker.store.client.lpush("celery", a_message(1))
    assert taker.until_got(1) == ["1"]
    assert taker.held_ids() == {"1"}


def test_basic_get_and_purge_are_unaffected(taker: Taker) -> None:
    channel = taker.connection.channel()
    taker.consumer.cancel()
    taker.store.client.lpush("celery", a_message(1), a_message(2), a_message(3))
    message = channel.basic_get("celery")
    assert message.headers["id"] == "1"
    message.ack()
    assert channel.queue_purge("celery") == 2


def test_a_broadcast_arrives_beside_the_queues(taker: Taker) -> None:
    """Remote control works by fanout, on a connection of its own kind."""
    exchange = Exchange("shouts", type="fanout")
    heard: list[Any] = []
    listener = Consumer(
        taker.channel,
        [Queue("ears", exchange, exclusive=True)],
        callbacks=[lambda body, message: heard.append(body)],
        accept=["json"],
        no_ack=True,
    )
    listener.consume()
    taker.until_armed()
    with kombu.Connection(taker.store.url) as other:
        Producer(other, exchange).publish({"shout": "hello"}, serializer="json")
        taker.until(lambda: bool(heard), "the broadcast")
    taker.store.client.lpush("celery", a_message(1))
    assert taker.until_got(1) == ["1"]
    assert heard == [{"shout": "hello"}]


def test_a_key_prefix_is_before_every_key(url: str, make_taker: MakeTaker) -> None:
    taker = make_taker(url, options={"global_keyprefix": "shop:"})
    with kombu.Connection(url, transport_options={"global_keyprefix": "shop:"}) as stock_producer:
        producer = Producer(stock_producer.channel())
        producer.publish([[], {}, None], routing_key="celery", headers={"id": "1", "task": "x"})
    assert taker.until_got(1) == ["1"]
    assert taker.held_ids() == {"1"}
    assert taker.store.client.exists("shop:nxs:{default}:inflight:w1@t:1")
    taker.got[0].requeue()
    assert taker.store.client.llen("shop:celery") == 1
    assert taker.until_got(2) == ["1", "1"]
    taker.got[1].ack()
    shelve(taker, "2", in_s=-1)
    assert taker.until_got(3)[2] == "2"


# helpers


@contextmanager
def consuming_from(connection: Any) -> Iterator[tuple[Any, list[Any]]]:
    got: list[Any] = []
    with connection, Consumer(connection.channel(), [a_queue("celery")], on_message=got.append):
        yield connection, got


def stock(url: str) -> Any:
    """kombu's own consumer."""
    return consuming_from(kombu.Connection(url))
