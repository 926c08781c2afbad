"""`fleet.checkpoint()` and `fleet.migrate()` as a task, a person and a command line meet them."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from celery import states
from celery.exceptions import Reject

from nxs_tasks import Fleet
from nxs_tasks.errors import CheckpointError, IntentRefused
from nxs_tasks.store import FleetStore
from nxs_tasks.store.guard import held_in
from nxs_tasks.transport.checkpoint import Checkpoint, Moved, declares
from nxs_tasks.transport.fence import Taken
from tests.conftest import JSON, MakeApp, Server, add_instance
from tests.integration.deliveries import TOKEN, Shop, hold, run, stored, take_away
from tests.integration.messages import message

pytest_plugins = ["tests.integration.deliveries_fixtures"]

SECRET = "4111-1111"


class Render:
    """A task that saves whatever it is given, and what it saw."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.store: FleetStore = fleet.runtime.store()
        self.seen: list[Any] = []

        @fleet.app.task(name="shop.render", shared=False, checkpoint=True)
        def render(*saves: Any) -> str:
            spot = fleet.checkpoint()
            self.seen.append(spot.state)
            for state in saves:
                self.seen.append(spot.save(state))
            return "done"

        @fleet.app.task(name="shop.taken", shared=False, checkpoint=True)
        def lose() -> None:
            spot = fleet.checkpoint()
            take_away(self.store)
            spot.save(1)
            self.seen.append("went on")

        @fleet.app.task(name="shop.plain", shared=False)
        def plain() -> None:
            fleet.checkpoint()

        @fleet.app.task(name="shop.early", shared=False, checkpoint=True, acks_late=False)
        def early() -> None:
            fleet.checkpoint()

        self.render, self.lose, self.plain, self.early = render, lose, plain, early

    def error(self, task: Any, *args: Any) -> Exception:
        """What ended the task."""
        hold(self.store)
        retval, _, _, _ = run(task, *args, id="t1")
        found = retval.exception
        error = getattr(found, "exc", found)
        assert isinstance(error, Exception)
        return error

    def is_held(self, task: str = "shop.render") -> None:
        """By w@t, in the form in which the claim writes it."""
        raw = json.dumps({**json.loads(message("t1", "celery", task=task))})
        key = held_in(self.store, TOKEN)
        self.store.client.hset(key, str(TOKEN), f'[{raw}, "", "celery"]')
        self.store.client.sadd(self.store.keys.holders(), f"{TOKEN.instance}:{TOKEN.epoch}")


@pytest.fixture
def render(here: Shop) -> Render:
    return Render(here.fleet)


class TestATask:
    def test_goes_on_where_it_was(self, render: Render) -> None:
        hold(render.store)
        run(render.render, {"n": 1}, {"n": 2, "name": "größe \udc80"}, id="t1")
        run(render.render, id="t1", token=TOKEN)
        assert render.seen == [None, True, True, {"n": 2, "name": "größe \udc80"}]

    def test_gets_a_state_of_its_own(self, render: Render) -> None:
        hold(render.store)
        spot: list[Checkpoint] = []

        @render.fleet.app.task(name="shop.keep", shared=False, checkpoint=True)
        def keep() -> None:
            spot.append(render.fleet.checkpoint())
            spot[0].save({"n": 1})
            spot[0].state["n"] = 7

        run(keep, id="t1")
        assert spot[0].state == {"n": 1}

    @pytest.mark.parametrize(
        "state", [{SECRET}, {"card": object()}, float("nan"), {("a", SECRET): 1}]
    )
    def test_is_told_what_is_not_json(self, render: Render, state: Any) -> None:
        error = render.error(render.render, state)
        assert isinstance(error, CheckpointError)
        assert "shop.render[t1]: what it saves is not JSON" in str(error)
        assert SECRET not in str(error)

    def test_is_told_what_is_too_large(self, url: str, make_app: MakeApp) -> None:
        render = Render(make_app(url, JSON, checkpoint_limit=0.01))
        error = render.error(render.render, "x" * 9_998, "x" * 9_999)
        assert isinstance(error, CheckpointError)
        assert str(error) == (
            "shop.render[t1]: what it saves is 0.01 MB, and may be 0.01 MB (setting "
            "checkpoint_limit): save where it lies, not what it is"
        )
        assert render.seen == [None, True]

    def test_is_told_that_it_does_not_declare_it(self, render: Render) -> None:
        error = render.error(render.plain)
        assert isinstance(error, CheckpointError)
        assert "shop.plain does not say that it can move" in str(error)
        assert "`@app.task(checkpoint=True)`" in str(error)

    def test_is_told_that_it_is_acknowledged_early(self, render: Render) -> None:
        error = render.error(render.early)
        assert isinstance(error, CheckpointError)
        assert "acks_late" in str(error)

    def test_ends_if_its_message_was_taken(self, render: Render) -> None:
        assert isinstance(render.error(render.lose), Taken)
        assert render.seen == []
        retval, info, _, _ = run(render.render, id="t1")
        assert info.state == states.IGNORED
        assert isinstance(retval.exception.exc, Taken)

    def test_goes_on_if_the_broker_does_not_take_it(
        self, own_server: Server, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        fleet = make_app(own_server.url, {**JSON, "result_backend": None}, broker_timeout=0.3)

        @fleet.app.task(name="shop.render", shared=False, checkpoint=True)
        def render() -> list[Any]:
            spot = fleet.checkpoint()
            said = [spot.save(1)]
            own_server.freeze()
            said.append(spot.save(2))
            own_server.thaw()
            return [*said, spot.state, spot.save(3), spot.state]

        hold(fleet.runtime.store())
        retval, _, _, _ = run(render, id="t1", ignore_result=True)
        assert retval == [True, False, 1, True, 3]
        assert "shop.render[t1] goes on without a new checkpoint" in caplog.text

    def test_is_given_back_if_the_broker_does_not_say_where_it_was(
        self, own_server: Server, make_app: MakeApp
    ) -> None:
        fleet = make_app(own_server.url, {**JSON, "result_backend": None}, broker_timeout=0.3)
        render = Render(fleet)
        hold(render.store)
        own_server.freeze()
        try:
            _, info, _, _ = run(render.render, 1, id="t1", ignore_result=True)
        finally:
            own_server.thaw()
        assert info.state == states.REJECTED
        assert isinstance(info.retval, Reject)
        assert info.retval.requeue
        assert not isinstance(info.retval, Moved)
        assert render.seen == []


def test_outside_of_a_task(here: Shop) -> None:
    with pytest.raises(CheckpointError, match=r"fleet\.checkpoint\(\) is for a task that a worker"):
        here.fleet.checkpoint()


@pytest.mark.parametrize(("value", "declared"), [(True, True), (False, False), (len, False)])
def test_what_declares_a_checkpoint(value: Any, declared: bool) -> None:
    """Somebody's task class may have a method of that name."""
    assert declares(type("Task", (), {"checkpoint": value})()) is declared
    assert not declares(None)


class TestAMove:
    def test_ends_the_task_without_an_outcome(self, render: Render) -> None:
        add_instance(render.store, "w2", tasks=("shop.render",))
        add_instance(render.store, TOKEN.instance, tasks=("shop.render",))
        render.is_held()
        run(render.render, {"n": 1}, id="t1")
        assert render.fleet.migrate("t1", "w2").new
        asked = render.fleet.migrate(render.fleet.app.AsyncResult("t1"), "w2")
        assert (asked.holder, asked.to, asked.task, asked.new) == (
            "w@t",
            "w2",
            "shop.render",
            False,
        )
        before = stored(render.fleet, "t1")
        _, info, _, _ = run(render.render, {"n": 2}, {"n": 3}, id="t1")
        assert info.state == states.REJECTED
        assert isinstance(info.retval, Moved)
        assert info.retval.requeue
        assert str(info.retval.reason) == "goes on with w2"
        assert render.seen == [None, True, {"n": 1}]
        assert stored(render.fleet, "t1") == before
        assert type(pickle.loads(pickle.dumps(info.retval))) is Moved

    def test_is_taken_back(self, render: Render) -> None:
        add_instance(render.store, "w2", tasks=("shop.render",))
        render.is_held()
        run(render.render, 1, id="t1")
        render.fleet.migrate("t1")
        assert render.fleet.stay("t1")
        assert not render.fleet.stay("t1")
        run(render.render, 2, id="t1")
        assert render.seen == [None, True, 1, True]

    def test_is_refused_with_a_reason(self, render: Render) -> None:
        def refused(to: str | None = None, task_id: str = "t1") -> str:
            with pytest.raises(IntentRefused) as found:
                render.fleet.migrate(task_id, to)
            return str(found.value)

        assert "t1 is not running" in refused()
        assert refused(task_id="") == "the id is empty"
        render.is_held()
        assert "no other instance is ACTIVE" in refused()
        assert refused("w9") == "shop.render[t1] cannot go to w9: there is no such instance"
        assert refused("w@t") == "shop.render[t1] cannot go to w@t: it runs there already"
        add_instance(render.store, "w3")
        assert refused("w3") == "shop.render[t1] cannot go to w3: does not know shop.render"
        add_instance(render.store, "w2", tasks=("shop.render",))
        assert "runs without a checkpoint: it has not called `fleet.checkpoint()`" in refused("w2")
