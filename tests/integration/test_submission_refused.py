"""Submissions that are refused, and those that others listen to."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import Celery, signals
from kombu.exceptions import EncodeError
from kombu.serialization import register, register_json

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import OptionError, SettingError
from nxs_tasks.submission.outcome import SubmitOutcome
from tests.conftest import Server
from tests.integration.submission_shop import MakeShop, Shop

pytest_plugins = ["tests.integration.submission_fixtures"]


@pytest.fixture
def shop(submission_shop: Shop) -> Shop:
    """Under this name others know a live one."""
    return submission_shop


ACCEPTED = SubmitOutcome.ACCEPTED


@contextmanager
def connected(signal: Any, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


class TestRefused:
    """Bad input is told by name, and nothing is sent."""

    @pytest.fixture(autouse=True)
    def nothing_is_sent(self, shop: Shop) -> Iterator[None]:
        yield
        assert shop.depths() == {}

    @pytest.mark.parametrize(
        ("task", "told"),
        [
            (4711, "task=4711: expected a task of this app, or the name of one"),
            (None, "task=None: expected"),
            (print, "expected a task of this app"),
        ],
    )
    def test_what_is_no_task(self, shop: Shop, task: Any, told: str) -> None:
        for submit in (shop.fleet.submit, shop.fleet.submit_many):
            with pytest.raises(OptionError, match=told):
                submit(task, [])

    def test_a_signature(self, shop: Shop) -> None:
        with pytest.raises(OptionError, match="a signature is sent by its own apply_async"):
            shop.fleet.submit(shop.pay.s(1))

    def test_a_task_of_another_app(self, shop: Shop) -> None:
        other = Celery("other", set_as_current=False)

        @other.task(name="other", shared=False)
        def task() -> None: ...

        with pytest.raises(OptionError, match="'other' belongs to another app"):
            shop.fleet.submit(task)

    @pytest.mark.parametrize("name", ["countdwon", "nonsense"])
    def test_an_unknown_option(self, shop: Shop, name: str) -> None:
        for _ in range(2):
            options: dict[str, Any] = {name: 1}
            with pytest.raises(OptionError, match=name):
                shop.fleet.submit(shop.pay, (1,), **options)
            with pytest.raises(OptionError, match=name):
                shop.fleet.submit_many(shop.pay, [(1,)], **options)

    def test_arguments_that_are_no_list(self, shop: Shop) -> None:
        for args in ("abc", 5, {"a": 1}):
            with pytest.raises(OptionError, match=f"args is {type(args).__name__}: expected a"):
                shop.fleet.submit(shop.pay, args)  # type: ignore[arg-type]
            with pytest.raises(OptionError, match=r"args_list\[1\] is .*: expected a list or"):
                shop.fleet.submit_many(shop.pay, [(1,), args])  # type: ignore[list-item]
        with pytest.raises(OptionError, match="kwargs is list: expected a mapping"):
            shop.fleet.submit(shop.pay, (1,), ["how"])  # type: ignore[arg-type]

    def test_arguments_that_the_task_does_not_take(self, shop: Shop) -> None:
        with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments"):
            shop.fleet.submit(shop.pay, (1, 2, 3))
        with pytest.raises(TypeError, match="unexpected keyword argument 'when'"):
            shop.fleet.submit(shop.pay, (1,), {"when": 1})
        with pytest.raises(TypeError, match=r"args_list\[700\]: .*missing 1 required"):
            shop.fleet.submit_many(shop.pay, [*[(n,) for n in range(700)], ()])

    def test_arguments_that_cannot_be_encoded(self, shop: Shop) -> None:
        for arguments in ((object(),), ({(1, 2): 3},)):
            with pytest.raises(EncodeError):
                shop.fleet.submit(shop.pay, arguments)

    def test_one_id_for_many(self, shop: Shop) -> None:
        with pytest.raises(OptionError, match="task_id"):
            shop.fleet.submit_many(shop.pay, [(1,)], task_id="a")

    def test_a_bad_time(self, shop: Shop) -> None:
        with pytest.raises(OptionError, match="countdown='soon'"):
            shop.fleet.submit(shop.pay, (1,), countdown="soon")

    def test_a_configuration_that_contradicts_a_promise(
        self, make_shop: MakeShop, url: str
    ) -> None:
        shop = make_shop(url)
        assert shop.app.conf.task_acks_late
        shop.app.config_from_object({"broker_url": url, "task_acks_late": False})
        for _ in range(2):
            with pytest.raises(SettingError, match="task_acks_late"):
                shop.fleet.submit(shop.pay, (1,))
            with pytest.raises(SettingError, match="task_acks_late"):
                shop.fleet.submit_many(shop.pay, [(1,)])


class TestSignals:
    def test_a_receiver_may_change_the_message(self, shop: Shop) -> None:
        def trace(headers: Any, properties: Any, body: Any, routing_key: str, **_: Any) -> None:
            headers["trace"] = routing_key
            properties["priority"] = 6
            body[1]["how"] = "traced"

        with connected(signals.before_task_publish, trace):
            shop.fleet.submit(shop.pay, (1,), {"how": "cash"})
            shop.fleet.submit_many(shop.pay, [(2,), (3,)])
        assert shop.orders("celery", priority=6) == [1, 2, 3]
        for message in shop.sent("celery", priority=6):
            assert message["headers"]["trace"] == "celery"
            assert json.loads(b64decode(message["body"]))[1] == {"how": "traced"}
        shop.fleet.submit(shop.pay, (4,))
        assert shop.orders("celery") == [4], "nobody listens any more"

    def test_the_placement_is_there_for_a_receiver_to_see(self, shop: Shop) -> None:
        shop.add("w1")
        seen: list[Any] = []

        def look(headers: Any, **_: Any) -> None:
            seen.append((headers["nxs"]["to"], headers["task"]))

        with connected(signals.before_task_publish, look):
            shop.fleet.submit(shop.pay, (1,))
        assert seen == [("w1", "shop.pay")]

    def test_after_it_is_sent_and_only_then(self, shop: Shop) -> None:
        seen: list[Any] = []

        def after(sender: str, headers: Any, body: Any, routing_key: str, **_: Any) -> None:
            seen.append((sender, list(body[0]), routing_key, shop.depths()["celery"]))

        with connected(signals.after_task_publish, after):
            shop.fleet.submit(shop.pay, (1,))
            shop.fleet.submit_many(shop.pay, [(2,), (3,)])
        assert seen == [
            ("shop.pay", [1], "celery", 1),
            ("shop.pay", [2], "celery", 3),
            ("shop.pay", [3], "celery", 3),
        ]

    def test_the_signal_before_celery_6(self, shop: Shop) -> None:
        seen: list[Any] = []

        def sent(task_id: str, task: str, args: Any, **_: Any) -> None:
            seen.append((task_id, task, list(args)))

        with connected(signals.task_sent, sent):
            found = shop.fleet.submit(shop.pay, (1,))
        assert seen == [(found.id, "shop.pay", [1])]

    def test_a_receiver_that_fails_stops_nothing(self, shop: Shop) -> None:
        def fails(**_: Any) -> None:
            raise ValueError("not my day")

        with connected(signals.before_task_publish, fails):
            assert shop.fleet.submit(shop.pay, (1,)).outcome is ACCEPTED

    def test_monitors_get_a_sent_event(self, make_shop: MakeShop, url: str) -> None:
        shop = make_shop(url, {"task_send_sent_event": True})
        events: list[dict[str, Any]] = []
        monitor = Celery("monitor", broker=url, set_as_current=False)
        with monitor.connection_for_read() as connection:
            receiver = monitor.events.Receiver(connection, handlers={"task-sent": events.append})
            with receiver.consumer_context(wakeup=False) as (listening, _, _):

                def has(count: int) -> bool:
                    with suppress(TimeoutError):
                        listening.drain_events(timeout=0.1)
                    return len(events) >= count

                def listens() -> bool:
                    return has(0) and bool(shop.store.client.pubsub_numpat())

                assert wait_until(listens, 30.0)
                found = shop.fleet.submit(shop.pay, (1,))
                many = shop.fleet.submit_many(shop.pay, [(2,), (3,)])
                assert wait_until(lambda: has(3), 30.0)
        monitor.close()
        assert [e["uuid"] for e in events] == [found.id, *many.ids]
        assert {(e["name"], e["queue"], e["routing_key"]) for e in events} == {
            ("shop.pay", "celery", "celery")
        }

    def test_who_listens_alone_is_heard(self, shop: Shop) -> None:
        seen: list[str] = []

        def before(sender: str, **_: Any) -> None:
            seen.append(sender)

        signals.before_task_publish.disconnect(shop.fleet.submitter.on_publish)
        with connected(signals.before_task_publish, before):
            shop.fleet.submit(shop.pay, (1,))
        assert seen == ["shop.pay"]

    def test_what_is_not_with_the_broker_is_not_announced(
        self, make_shop: MakeShop, own_server: Server
    ) -> None:
        shop = make_shop(own_server.url)
        seen: list[str] = []

        def after(sender: str, **_: Any) -> None:
            seen.append(sender)

        with connected(signals.after_task_publish, after):
            shop.fleet.submit(shop.pay, (1,))
            own_server.kill()
            assert shop.fleet.submit(shop.pay, (2,)).outcome is SubmitOutcome.SPOOLED
            shop.fleet.submit_many(shop.pay, [(3,), (4,)])
        assert seen == ["shop.pay"]


def test_another_encoder_under_the_name_json_is_used(shop: Shop) -> None:
    def encode(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    shop.fleet.submit(shop.pay, (1,))
    try:
        register("json", encode, json.loads, "application/json", "utf-8")
        shop.fleet.submit("shop.pay", (2,))
        shop.fleet.submit_many(shop.pay, [(3,)], priority=0)
    finally:
        register_json()
    first, second, third = (b64decode(m["body"]) for m in shop.sent("celery"))
    assert first.startswith(b"[[1], {}")
    assert second.startswith(b"[[2],{}")
    assert third.startswith(b"[[3],{}")
