"""A task whose message was taken sends nothing more; and who is in order pays nothing for that."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery import states

from nxs_tasks import Fleet
from nxs_tasks.clock import FakeClock
from nxs_tasks.errors import SettingError
from nxs_tasks.transport.fence import Fence, Taken, fence_of
from nxs_tasks.worker.lease import Lease
from tests.conftest import JSON, MakeApp, Server
from tests.integration.deliveries import TOKEN, Shop, context, hold, run, stock_app, stored

pytest_plugins = ["tests.integration.deliveries_fixtures"]


def asked(shop: Shop) -> int:
    """How often the server was asked whether a message is held."""
    stats: Any = shop.store.client.info("commandstats")
    return int(stats.get("cmdstat_hexists", {}).get("calls", 0))


@pytest.fixture
def sender(here: Shop) -> Any:
    """A task that sends another one."""

    @here.app.task(name="shop.send", shared=False)
    def send() -> str:
        here.add.delay(1, 2)
        here.done.append("went on")
        return "sent"

    return send


class TestWhatIsSent:
    def test_by_the_task_itself(self, here: Shop, sender: Any) -> None:
        retval, info, _, _ = run(sender, id="t1")
        assert (here.waiting(), here.done) == ([], [])
        assert info.state == states.IGNORED
        assert isinstance(retval.exception.exc, Taken)
        hold(here.store)
        run(sender, id="t1")
        assert (len(here.waiting()), here.done) == (1, ["went on"])

    @pytest.mark.parametrize("held", [True, False])
    @pytest.mark.filterwarnings("ignore:Exception raised outside body")
    def test_as_its_callback(
        self, here: Shop, held: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        if held:
            hold(here.store)
        run(here.add, 1, 2, id="t1", callbacks=[here.note.s()])
        assert len(here.waiting()) == (1 if held else 0)
        assert (stored(here.fleet, "t1") is not None) is held
        assert ("shop.add[t1] sends nothing more: the message was taken" in caplog.text) is not held

    @pytest.mark.parametrize("held", [True, False])
    @pytest.mark.filterwarnings("ignore:Exception raised outside body")
    def test_as_the_next_link_of_its_chain(self, here: Shop, held: bool) -> None:
        if held:
            hold(here.store)
        run(here.add, 1, 2, id="t1", chain=[dict(here.add.s(5).set(task_id="t2"))])
        assert [m["headers"]["id"] for m in here.waiting()] == (["t2"] if held else [])
        assert stored(here.fleet, "t2") is None

    @pytest.mark.parametrize("held", [True, False])
    def test_to_where_the_app_itself_routes_it(
        self, url: str, make_app: MakeApp, held: bool
    ) -> None:
        shop = Shop(make_app(url, {**JSON, "task_routes": {"shop.add": {"queue": "theirs"}}}))

        @shop.app.task(name="shop.send", shared=False)
        def send() -> None:
            shop.add.delay(1, 2)
            shop.app.send_task("shop.add", (1, 2), queue="mine")

        if held:
            hold(shop.store)
        run(send, id="t1")
        depths = [shop.store.client.llen(queue) for queue in ("theirs", "mine")]
        assert depths == ([1, 1] if held else [0, 0])


class TestWhoIsAsked:
    def test_nobody_while_the_heartbeat_is_fresh(
        self, url: str, make_app: MakeApp, here: Shop, sender: Any
    ) -> None:
        lease = here.fleet.fence.lease = Lease(10.0)
        lease.renew(TOKEN.epoch, here.fleet.runtime.clock.elapsed())
        before = asked(here)
        run(sender, id="t1", ignore_result=True)
        assert len(here.waiting()) == 1
        assert asked(here) == before

    def test_the_server_when_it_is_old(self, url: str, make_app: MakeApp) -> None:
        clock = FakeClock()
        shop = Shop(make_app(url, JSON, clock=clock))
        lease = shop.fleet.fence.lease = Lease(shop.fleet.settings.gone_after)
        lease.renew(TOKEN.epoch, clock.elapsed())
        acting = shop.fleet.fence.on_behalf_of(context(shop.add, id="t1"))
        with acting:
            shop.fleet.fence.check()
            clock.advance(shop.fleet.settings.gone_after + 0.1)
            with pytest.raises(Taken, match="epoch 4"):
                shop.fleet.fence.check()

    def test_the_server_when_the_process_has_joined_anew(self, here: Shop, sender: Any) -> None:
        lease = here.fleet.fence.lease = Lease(10.0)
        lease.renew(TOKEN.epoch + 1, here.fleet.runtime.clock.elapsed())
        run(sender, id="t1")
        assert here.waiting() == []

    def test_nobody_outside_of_tasks(self, here: Shop) -> None:
        before = asked(here)
        here.add.delay(1, 2)
        assert asked(here) == before
        assert len(here.waiting()) == 1

    def test_nobody_who_acknowledges_early(self, here: Shop, sender: Any) -> None:
        sender.acks_late = False
        run(sender, id="t1")
        assert len(here.waiting()) == 1

    def test_a_server_that_does_not_answer_refuses_nobody(
        self, own_server: Server, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = Shop(make_app(own_server.url, JSON))
        shop.store.ping()
        own_server.kill()
        with (
            shop.fleet.fence.on_behalf_of(context(shop.add, id="t1")),
            caplog.at_level(logging.WARNING),
        ):
            shop.fleet.fence.check()
        assert "may have lost its message: no Redis or Valkey server answers" in caplog.text


class TestWhoActs:
    def test_a_request_without_a_token_goes_on_for_who_acted_before(self, here: Shop) -> None:
        fence = here.fleet.fence
        outer, inner = context(here.add, id="t1"), context(here.add, id="t2", properties={})
        with fence.on_behalf_of(outer) as first, fence.on_behalf_of(inner) as second:
            assert second is first
            assert first is not None
            assert str(first) == "shop.add[t1]"
        assert fence.acting() is None

    def test_a_token_of_its_own_comes_first(self, here: Shop) -> None:
        fence = here.fleet.fence
        other = context(here.add, "w@t|4|8", id="t2")
        with (
            fence.on_behalf_of(context(here.add, id="t1")),
            fence.on_behalf_of(other) as acting,
        ):
            assert acting is not None
            assert acting.token.number == 8

    def test_an_eager_task_acts_for_the_task_around_it(self, here: Shop) -> None:
        seen: list[Any] = []

        @here.app.task(name="shop.look", shared=False)
        def look() -> None:
            seen.append(here.fleet.fence.acting())

        @here.app.task(name="shop.around", shared=False)
        def around() -> None:
            look.apply()

        run(around, id="t1")
        assert [str(acting) for acting in seen] == ["shop.around[t1]"]


def test_an_app_without_a_fleet_says_so(url: str) -> None:
    with stock_app(url) as app, pytest.raises(SettingError, match="has no fleet"):
        fence_of(app)


def test_the_fence_is_the_fleets(here: Shop) -> None:
    assert isinstance(here.fleet, Fleet)
    assert isinstance(here.fleet.fence, Fence)
    assert fence_of(here.app) is here.fleet.fence
