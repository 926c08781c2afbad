"""What a task stores counts only while its message is held, and looks as Celery stores it."""

from __future__ import annotations

import json
import logging
import pickle
from typing import Any

import pytest
from celery import states
from celery._state import _task_stack
from celery.app.trace import TraceInfo
from celery.exceptions import Reject
from kombu.utils.uuid import uuid

from nxs_tasks.store import connect
from nxs_tasks.store.token import Token
from nxs_tasks.transport.fence import Taken
from nxs_tasks.transport.results import END_TRIES
from tests.conftest import JSON, MakeApp
from tests.integration.deliveries import (
    Shop,
    chord_of,
    context,
    hold,
    parts,
    run,
    stock_app,
    stored,
    take_away,
)

pytest_plugins = ["tests.integration.deliveries_fixtures"]


class TestOneResult:
    def test_is_stored_while_the_message_is_held(self, anywhere: Shop) -> None:
        hold(anywhere.store)
        run(anywhere.add, 2, 3, id="t1")
        found = stored(anywhere.fleet, "t1")
        assert found is not None
        assert (found["status"], found["result"]) == ("SUCCESS", 5)

    def test_is_refused_once_it_was_taken(
        self, anywhere: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        hold(anywhere.store, Token("w@t", 4, 8))
        with caplog.at_level(logging.WARNING):
            retval, info, _, _ = run(anywhere.add, 2, 3, id="t1")
        assert stored(anywhere.fleet, "t1") is None
        assert retval == 5, "the tracer goes on"
        assert info is None
        assert (
            "result of shop.add[t1] refused: the message was taken from this process (epoch 4)"
            in caplog.messages
        )

    @pytest.mark.parametrize("own", [None, 3])
    def test_is_tried_for_longer_than_other_writes(
        self, url: str, make_app: MakeApp, own: int | None
    ) -> None:
        """The work is done: after Celery's 20 tries it would be said to have failed."""
        options = {} if own is None else {"retry_policy": {"max_retries": own}}
        here = Shop(make_app(url, {**JSON, "result_backend_transport_options": options}))
        backend: Any = here.app.backend
        assert backend.retry_policy["max_retries"] == (own or 20)
        with backend._desk.fence.on_behalf_of(context(here.add)):
            assert backend.retry_policy["max_retries"] == (own or 20), "it is no task's thread"
            _task_stack.push(here.add)
            found = backend.retry_policy["max_retries"]
            _task_stack.pop()
        assert found == (own or END_TRIES)

    def test_is_told_to_who_waits_only_if_it_is_stored(self, anywhere: Shop) -> None:
        backend = anywhere.app.backend
        with backend.client.pubsub() as listener:
            for task_id in ("t1", "t2"):
                listener.subscribe(backend.get_key_for_task(task_id))
                listener.get_message(timeout=5)
            run(anywhere.add, 2, 3, id="t1")
            hold(anywhere.store)
            run(anywhere.add, 2, 3, id="t2")
            told = json.loads(listener.get_message(timeout=5)["data"])
        assert told["task_id"] == "t2"

    def test_a_script_elsewhere_does_not_move_the_connection(self, anywhere: Shop) -> None:
        hold(anywhere.store)
        run(anywhere.add, 2, 3, id="t1")
        take_away(anywhere.store)
        run(anywhere.add, 2, 3, id="t2")
        backend = anywhere.app.backend
        backend.client.set("here", "1")
        fresh = connect(anywhere.app.conf.result_backend)
        assert fresh.get("here") == "1"

    @pytest.mark.parametrize(("expires", "kept"), [(60, True), (0, False)])
    def test_is_kept_as_long_as_celery_keeps_it(
        self, url: str, make_app: MakeApp, expires: int, kept: bool
    ) -> None:
        here = Shop(make_app(url, {**JSON, "result_expires": expires}))
        hold(here.store)
        run(here.add, 2, 3, id="t1")
        left = here.store.client.ttl("celery-task-meta-t1")
        assert (0 < left <= 60) if kept else left == -1

    def test_a_failure_has_its_own_expiry(self, url: str, make_app: MakeApp) -> None:
        here = Shop(make_app(url, {**JSON, "result_failure_expires": 30}))
        hold(here.store)
        run(here.fail, id="t1")
        assert 0 < here.store.client.ttl("celery-task-meta-t1") <= 30

    @pytest.mark.parametrize("serializer", ["json", "pickle"])
    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_stock_celery_reads_it(
        self, url: str, make_app: MakeApp, serializer: str, compression: str | None
    ) -> None:
        conf = {
            **JSON,
            "result_serializer": serializer,
            "accept_content": ["json", "pickle"],
            "result_compression": compression,
            "result_extended": True,
        }
        here = Shop(make_app(url, conf))
        hold(here.store)
        run(here.add, 2, 3, id="t1")
        run(here.fail, id="t2")
        with stock_app(url, **conf) as stock:
            assert stock.AsyncResult("t1").get(timeout=5) == 5
            assert stock.AsyncResult("t1").name == "shop.add"
            with pytest.raises(ValueError, match="as asked"):
                stock.AsyncResult("t2").get(timeout=5)

    def test_its_bytes_are_those_that_celery_stores(self, here: Shop, url: str) -> None:
        hold(here.store)
        run(here.add, 2, 3, id="t1", parent_id="p", group="g")
        ours = here.store.client.get("celery-task-meta-t1")
        with stock_app(url) as stock:

            @stock.task(name="shop.add", shared=False)
            def add(x: int, y: int) -> int:
                return x + y

            run(add, 2, 3, id="t2", parent_id="p", group="g")
        theirs = here.store.client.get("celery-task-meta-t2")

        def undated(text: Any) -> list[tuple[str, Any]]:
            fields = json.loads(text)
            assert fields.pop("date_done")
            assert fields.pop("task_id")
            return list(fields.items())

        assert undated(ours) == undated(theirs)


class TestWhoIsNotAsked:
    def test_a_delivery_of_kombu(self, here: Shop) -> None:
        run(here.add, 2, 3, id="t1", token=uuid())
        assert stored(here.fleet, "t1") is not None

    def test_a_client(self, here: Shop) -> None:
        here.app.backend.store_result("t1", 5, states.SUCCESS)
        assert stored(here.fleet, "t1") is not None

    def test_an_eager_task(self, url: str, make_app: MakeApp) -> None:
        here = Shop(make_app(url, {**JSON, "task_store_eager_result": True}))
        result = here.add.apply((2, 3))
        assert stored(here.fleet, result.id) is not None

    def test_a_task_that_acknowledges_early(self, here: Shop) -> None:
        """Its message is gone before it runs, and nobody else will ever run it."""
        here.add.acks_late = False
        run(here.add, 2, 3, id="t1")
        assert stored(here.fleet, "t1") is not None


class TestOtherStates:
    @pytest.mark.parametrize("held", [True, False])
    def test_started(self, url: str, make_app: MakeApp, held: bool) -> None:
        here = Shop(make_app(url, {**JSON, "task_track_started": True}))
        seen: list[Any] = []

        @here.app.task(name="shop.look", shared=False)
        def look() -> None:
            seen.append(stored(here.fleet, "t1"))

        if held:
            hold(here.store)
        _, info, _, _ = run(look, id="t1")
        assert info is None
        assert [bool(s) and s["status"] for s in seen] == (["STARTED"] if held else [False])

    def test_progress_is_stored_while_the_message_is_held(self, here: Shop) -> None:
        hold(here.store)
        run(here.report, id="t1")
        assert here.done == ["went on"]
        assert (stored(here.fleet, "t1") or {})["status"] == "SUCCESS"

    def test_progress_that_is_refused_ends_the_task(self, here: Shop) -> None:
        retval, info, _, _ = run(here.report, id="t1")
        assert here.done == []
        assert isinstance(info, TraceInfo)
        assert info.state == states.IGNORED
        assert isinstance(retval.exception.exc, Taken)
        assert stored(here.fleet, "t1") is None

    def test_a_refusal_can_be_sent_to_the_main_process(self) -> None:
        again = pickle.loads(pickle.dumps(Taken("the message was taken")))
        assert type(again) is Taken
        assert str(again) == "the message was taken"

    @pytest.mark.parametrize("held", [True, False])
    def test_a_retry(self, here: Shop, held: bool) -> None:
        if held:
            hold(here.store)
        run(here.again, id="t1", correlation_id="t1")
        assert (stored(here.fleet, "t1") or {}).get("status") == ("RETRY" if held else None)
        assert len(here.waiting()) == (1 if held else 0)

    @pytest.mark.parametrize("held", [True, False])
    def test_a_revocation(self, here: Shop, held: bool) -> None:
        if held:
            hold(here.store)
        asked = context(here.add, id="t1", chord=chord_of(here), group="g1")
        here.app.backend.set_chord_size("g1", 2)
        here.app.backend.mark_as_revoked("t1", "expired", request=asked)
        assert (stored(here.fleet, "t1") or {}).get("status") == ("REVOKED" if held else None)
        assert parts(here, "g1") == (1 if held else 0)

    @pytest.mark.parametrize("held", [True, False])
    def test_a_group(self, here: Shop, held: bool) -> None:
        @here.app.task(name="shop.save", shared=False)
        def save() -> None:
            here.app.GroupResult("g1", [here.app.AsyncResult("t9")]).save()

        if held:
            hold(here.store)
        run(save, id="t1")
        assert (here.app.GroupResult.restore("g1") is not None) is held


def test_a_task_that_rejects_its_message_leaves_no_result(here: Shop) -> None:
    @here.app.task(name="shop.reject", shared=False)
    def reject() -> None:
        raise Reject("not for me", requeue=False)

    run(reject, id="t1")
    assert stored(here.fleet, "t1") is None
