"""A unique key: one task of it at a time, from its submission to its end."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from kombu import Exchange, Queue

from nxs_tasks.control.beat import FleetScheduler
from nxs_tasks.errors import AlreadySubmitted, OptionError, SubmissionRejected
from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.store import FleetStore
from nxs_tasks.store.inflight import Inflight
from nxs_tasks.store.quarantine import Quarantine
from nxs_tasks.store.unique import UniqueKeys
from nxs_tasks.submission.outcome import SubmitOutcome
from tests.conftest import MakeApp, Server, new_store
from tests.integration.live import Live

pytest_plugins = ["tests.integration.live_fixtures"]

KEY: dict[str, Any] = {"headers": {"nxs_unique": "nightly"}}


class Desk:
    def __init__(self, make_app: MakeApp, url: str, **settings: Any) -> None:
        self.fleet = make_app(url, **settings)
        self.app: Any = self.fleet.app
        self.store: FleetStore = new_store(url)
        self.keys = UniqueKeys(self.store)

        @self.app.task(name="shop.pay", shared=False)
        def pay(*args: int) -> None: ...

        self.pay: Any = pay

    def sent(self, key: str = "celery") -> list[str]:
        raws: Any = self.store.client.lrange(key, 0, -1)
        return [json.loads(raw)["headers"]["id"] for raw in reversed(raws)]


@pytest.fixture
def desk(make_app: MakeApp, url: str) -> Desk:
    return Desk(make_app, url)


class TestSubmitting:
    def test_the_second_is_told_of_the_first(self, desk: Desk) -> None:
        first = desk.pay.apply_async((1,), **KEY)
        with pytest.raises(AlreadySubmitted) as told:
            desk.pay.apply_async((2,), **KEY)
        assert (told.value.task_id, told.value.unique_key) == (first.id, "nightly")
        assert first.id in str(told.value)
        assert desk.sent() == [first.id]
        again = pickle.loads(pickle.dumps(told.value))
        assert (again.task_id, str(again)) == (first.id, str(told.value))

    def test_other_keys_and_none_are_others(self, desk: Desk) -> None:
        ids = [
            desk.pay.apply_async((1,), **KEY).id,
            desk.pay.apply_async((1,), headers={"nxs_unique": "other"}).id,
            desk.pay.delay(1).id,
        ]
        assert desk.sent() == ids

    def test_another_task_may_not_have_it_either(self, desk: Desk) -> None:
        desk.pay.apply_async((1,), **KEY)
        with pytest.raises(AlreadySubmitted):
            desk.app.send_task("shop.other", **KEY)

    def test_the_same_task_again_is_there_already(self, desk: Desk) -> None:
        for _ in range(2):
            desk.pay.apply_async((1,), task_id="t-1", **KEY)
        assert desk.sent() == ["t-1"]

    def test_of_a_task_that_acknowledges_early_it_is_refused(self, desk: Desk) -> None:
        desk.pay.acks_late = False
        with pytest.raises(OptionError, match="acks_late=False"):
            desk.pay.apply_async((1,), **KEY)
        assert desk.sent() == []

    def test_a_later_message_of_its_task_has_it_then(self, desk: Desk) -> None:
        first = desk.pay.apply_async((1,), **KEY)
        desk.pay.apply_async((1,), task_id=first.id, retries=1, **KEY)
        assert desk.sent() == [first.id, first.id]
        inflight, hold = Inflight(desk.store), desk.store.keys.inflight("w1", 1)
        for age, owner in ((0, first.id), (2, "")):
            desk.store.client.hset(hold, "w1|1|1", "message")
            how: dict[str, Any] = {"unique_key": "nightly", "task_id": first.id, "age": age}
            assert inflight.acknowledge("w1", 1, "w1|1|1", **how)
            assert desk.keys.owner("nightly") == owner

    def test_a_later_message_is_sent_whoever_has_it(self, desk: Desk) -> None:
        first = desk.pay.apply_async((1,), **KEY)
        late = desk.pay.apply_async((1,), task_id="late", retries=1, **KEY)
        assert desk.sent() == [first.id, late.id]
        assert desk.keys.owner("nightly") == first.id
        assert dict(desk.keys.taken()) == {"nightly": first.id}

    def test_what_is_released_from_quarantine_takes_it_again(self, desk: Desk) -> None:
        first = desk.pay.apply_async((1,), **KEY)
        message: Any = desk.store.client.rpop("celery")
        desk.store.client.hset(
            desk.store.keys.shelf(QUARANTINE), "e", '{"list": "celery"}\n' + message
        )
        desk.store.client.zadd(desk.store.keys.shelf_index(QUARANTINE), {"e": 1.0})
        desk.keys.release("nightly", first.id)
        other = desk.pay.apply_async((2,), **KEY)
        quarantine = Quarantine(desk.store)
        assert quarantine.release(quarantine.entries()) == 0
        assert desk.sent() == [other.id]
        desk.keys.release("nightly", other.id)
        assert quarantine.release(quarantine.entries()) == 1
        assert desk.keys.owner("nightly") == first.id

    def test_a_retry_goes_out_with_the_key_that_it_has(self, desk: Desk) -> None:
        desk.pay.apply_async((1,), task_id="t-1", **KEY)
        desk.pay.apply_async((1,), task_id="t-1", retries=1, **KEY)
        assert (desk.sent(), desk.keys.owner("nightly")) == (["t-1", "t-1"], "t-1")

    def test_it_may_be_freed_by_hand(self, desk: Desk) -> None:
        first = desk.pay.apply_async((1,), **KEY)
        desk.store.client.delete("celery")
        assert dict(desk.keys.taken()) == {"nightly": first.id}
        assert desk.keys.release("nightly", first.id)
        assert desk.sent() == []
        assert desk.pay.apply_async((1,), **KEY).id in desk.sent()

    def test_of_several_queues_it_is_refused(self, desk: Desk) -> None:
        topic = Exchange("topic", type="topic")
        queues = [Queue(name, topic, routing_key="#") for name in ("a", "b")]
        with pytest.raises(SubmissionRejected, match="2 queues"):
            desk.pay.apply_async((1,), exchange=topic, routing_key="x", declare=queues, **KEY)
        assert desk.keys.owner("nightly") == ""


class TestSubmit:
    """By `fleet.submit`."""

    def test_the_second_gets_the_id_of_the_first(self, desk: Desk) -> None:
        first = desk.fleet.submit(desk.pay, (1,), unique_key="nightly")
        second = desk.fleet.submit("shop.pay", (2,), unique_key="nightly")
        third = desk.fleet.submit(desk.pay, (3,), **KEY)
        assert [s.outcome for s in (first, second, third)] == [SubmitOutcome.ACCEPTED] * 3
        assert {s.id for s in (first, second, third)} == {first.id}
        assert "has the unique_key 'nightly'" in second.reason
        assert (desk.sent(), desk.keys.owner("nightly")) == ([first.id], first.id)

    def test_also_where_celery_itself_sends_it(self, desk: Desk) -> None:
        first = desk.fleet.submit(desk.pay, (1,), unique_key="nightly", retry=True)
        second = desk.fleet.submit(desk.pay, (2,), unique_key="nightly", retry=True)
        assert (first.outcome, second.outcome) == (SubmitOutcome.ACCEPTED,) * 2
        assert (second.id, desk.sent()) == (first.id, [first.id])

    def test_the_message_is_that_of_apply_async(self, desk: Desk) -> None:
        desk.fleet.submit(desk.pay, (1,), unique_key="nightly", headers={"mine": 1})
        raw: Any = desk.store.client.lindex("celery", 0)
        headers = json.loads(raw)["headers"]
        assert (headers["nxs_unique"], headers["mine"]) == ("nightly", 1)

    def test_a_retry_has_it_already(self, desk: Desk) -> None:
        first = desk.fleet.submit(desk.pay, (1,), unique_key="nightly")
        desk.fleet.submit(desk.pay, (1,), task_id=first.id, retries=1, **KEY)
        assert desk.sent() == [first.id] * 2

    def test_many_of_one_key_are_refused(self, desk: Desk) -> None:
        for options in ({"unique_key": "nightly"}, KEY):
            with pytest.raises(OptionError, match="unique_key"):
                desk.fleet.submit_many(desk.pay, [(1,), (2,)], **options)
        assert desk.sent() == []

    @pytest.mark.parametrize("key", ["", None, 7])
    def test_a_key_is_a_text(self, desk: Desk, key: Any) -> None:
        with pytest.raises(OptionError, match="expected a text"):
            desk.fleet.submit(desk.pay, (1,), unique_key=key)

    def test_while_the_broker_is_away(self, make_app: MakeApp, own_server: Server) -> None:
        desk = Desk(make_app, own_server.url, submit_deadline=0.5)
        own_server.kill()
        first = desk.fleet.submit(desk.pay, (1,), unique_key="nightly")
        second = desk.fleet.submit(desk.pay, (2,), unique_key="nightly")
        assert (first.outcome, second.outcome) == (SubmitOutcome.SPOOLED,) * 2
        assert second.id == first.id
        own_server.start()
        desk.fleet.outbox.drain()
        assert (desk.sent(), desk.keys.owner("nightly")) == ([first.id], first.id)


class TestSpooled:
    def test_while_the_broker_is_away_the_spool_knows(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        desk = Desk(make_app, own_server.url, submit_deadline=0.5)
        own_server.kill()
        first = desk.pay.apply_async((1,), **KEY)
        with pytest.raises(AlreadySubmitted) as told:
            desk.pay.apply_async((2,), **KEY)
        assert told.value.task_id == first.id
        own_server.start()
        desk.fleet.outbox.drain()
        assert (desk.sent(), desk.keys.owner("nightly")) == ([first.id], first.id)

    def test_a_key_that_was_taken_before_is_left_to_its_task(
        self, make_app: MakeApp, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk = Desk(make_app, own_server.url, submit_deadline=0.5)
        first = desk.pay.apply_async((1,), **KEY)
        own_server.kill()
        second = desk.pay.apply_async((2,), **KEY)
        own_server.start()
        desk.fleet.outbox.drain()
        assert desk.sent() == [first.id]
        assert f"task {second.id} is not sent" in caplog.text


def test_a_beat_passes_over_what_is_not_done_yet(
    make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"task": "shop.pay", "schedule": 60.0, "options": dict(KEY)}
    fleet = make_app(url, {"beat_schedule": {"nightly": entry}})
    beat = FleetScheduler(fleet.app)
    beat.tick()
    for _ in range(3):
        beat.apply_entry(beat.schedule["nightly"], producer=beat.producer)
    assert new_store(url).client.llen("celery") == 1
    assert (beat._failures, [r for r in caplog.records if r.levelname == "ERROR"]) == (0, [])
    beat.close()


class TestRunning:
    """With a real worker, until the task has ended."""

    def key(self, live: Live) -> str:
        return UniqueKeys(live.store).owner("nightly")

    def test_the_key_is_free_when_the_task_has_ended(self, live: Live, shop: Any) -> None:
        live.worker("w1@t", 1)
        for _ in range(2):
            result = shop.nap.apply_async((0.5,), **KEY)
            with pytest.raises(AlreadySubmitted):
                shop.nap.apply_async((0.5,), **KEY)
            result.get(timeout=60)
            live.until(lambda: not self.key(live), "the key is free")

    def test_also_when_it_has_failed(self, live: Live, shop: Any) -> None:
        live.worker("w1@t", 1)
        result = shop.fail.apply_async(**KEY)
        with pytest.raises(ValueError, match="as asked"):
            result.get(timeout=60)
        live.until(lambda: not self.key(live), "the key is free")

    def test_it_is_kept_over_a_retry(self, live: Live, shop: Any) -> None:
        result = shop.flaky.apply_async((2,), **KEY)
        seen = set()

        def note_and_end() -> bool:
            seen.add(self.key(live))
            return bool(result.ready())

        live.worker("w1@t", 1)
        live.until(note_and_end, "the task has ended")
        assert result.get(timeout=60) == 2
        assert seen - {""} == {result.id}
        live.until(lambda: not self.key(live), "the key is free")
