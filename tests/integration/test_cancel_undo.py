"""What a cancellation leaves behind: to be taken back, told, and forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from celery import chord
from celery.result import AsyncResult

from nxs_tasks.control.cancelling import forget, tell
from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.shelf import CANCELLED
from nxs_tasks.store import FleetStore
from nxs_tasks.store.shelves import Shelves
from tests.conftest import MakeApp, Server
from tests.integration.mailroom import OWN, SHARED, Mailroom

pytest_plugins = ["tests.integration.mailroom"]


class TestUndoing:
    def test_what_waited_waits_again_at_the_front_in_its_order(self, room: Mailroom) -> None:
        mails = [room.mail.delay(n) for n in range(3)]
        pay = room.pay.delay(1)
        room.fleet.cancel(task="shop.mail")
        undone = room.fleet.uncancel(task="shop.mail")
        assert undone.back == tuple(m.id for m in mails)
        assert room.ids() == [*(m.id for m in mails), pay.id]
        assert [m.state for m in mails] == ["PENDING"] * 3
        assert room.fleet.intents().cancelled == 0

    def test_from_an_instance_s_own_queue_to_where_it_can_run_now(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.move(result, OWN)
        room.fleet.cancel(result)
        assert room.fleet.uncancel(result).back == (result.id,)
        assert room.ids() == [result.id], "w1@t is no more"

    def test_an_id_without_a_message_is_not_cancelled_any_more(self, room: Mailroom) -> None:
        room.fleet.cancel("never-seen")
        undone = room.fleet.uncancel("never-seen", "not-cancelled")
        assert (undone.unmarked, undone.unknown) == (("never-seen",), ("not-cancelled",))
        assert room.fleet.intents().cancelled == 0

    def test_whose_unique_key_is_taken_stays_cancelled(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        [text] = room.store.client.lrange(SHARED, 0, -1)
        message = json.loads(text)
        message["headers"]["nxs_unique"] = "a"
        room.store.client.delete(SHARED)
        room.store.client.lpush(SHARED, json.dumps(message))
        room.fleet.cancel(result)
        room.store.client.set(room.store.keys.unique("a"), "another")
        assert dict(room.fleet.uncancel(result).refused) == {result.id: "another"}
        assert result.state == "REVOKED"
        assert room.intents.is_cancelled(result.id)

    def test_a_result_that_came_all_the_same_stays(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.fleet.cancel(result)
        room.app.backend.store_result(result.id, 1, "SUCCESS")
        room.fleet.uncancel(result)
        assert result.state == "SUCCESS"

    def test_nothing_is_refused(self, room: Mailroom) -> None:
        with pytest.raises(IntentRefused, match="say what to take back"):
            room.fleet.uncancel()


class TestForgetting:
    def test_when_its_time_is_over_and_it_is_not_there_any_more(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.fleet.cancel(result, "never-seen")
        assert forget(room.fleet.runtime) == 0
        _make_due(room.store, result.id, "never-seen")
        assert forget(room.fleet.runtime) == 2
        assert room.fleet.intents().cancelled == 0
        assert Shelves(room.store).count(CANCELLED) == 0

    def test_but_not_while_it_waits_somewhere(self, room: Mailroom) -> None:
        part = chord([room.mail.s(1), room.mail.s(2)])(room.pay.s()).parent.results[0]
        late = AsyncResult("late", app=room.app)
        room.fleet.cancel(part, "late")
        room.mail.apply_async((1,), task_id="late")
        _make_due(room.store, part.id, "late")
        assert forget(room.fleet.runtime) == 0
        assert room.intents.is_cancelled(part.id)
        assert room.intents.is_cancelled("late")
        assert late.state == "PENDING"
        tell(room.fleet.runtime)
        assert late.state == "REVOKED", "what came late was taken out"

    def test_the_control_job_does_it(self, room: Mailroom, tmp_path: Path) -> None:
        from nxs_tasks.control.jobs import prune

        room.fleet.cancel("never-seen")
        _make_due(room.store, "never-seen")
        prune(room.fleet.runtime)
        assert room.fleet.intents().cancelled == 0


def _make_due(store: FleetStore, *ids: str) -> None:
    store.client.zadd(store.keys.cancelled(), {id_: store.now() - 10 for id_ in ids})


def test_a_result_backend_that_is_away_is_told_later(
    url: str, own_server: Server, make_app: MakeApp
) -> None:
    room = Mailroom(make_app(url, {"result_backend": own_server.url}), url)
    # Not kept: a result that dies after its server makes Celery complain.
    task_id = room.mail.delay(1).id
    own_server.kill()
    told = room.fleet.cancel(task_id)
    assert told.withdrawn == {"queue celery": 1}
    assert "the result backend cannot be told" in told.untold
    assert own_server.url not in told.untold
    own_server.start()
    assert forget(room.fleet.runtime) == 0
    assert room.app.AsyncResult(task_id).state == "REVOKED"
    assert room.intents.untold() == {}
