"""What follows from the end of a task: error handlers, successors, and its part of a chord."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chord, states

from nxs_tasks.store.token import Token
from nxs_tasks.transport.fence import Taken
from tests.integration.deliveries import (
    Shop,
    chord_of,
    context,
    hold,
    parts,
    run,
    stored,
    take_away,
)

pytest_plugins = ["tests.integration.deliveries_fixtures"]


class TestFailures:
    def test_call_error_handlers(self, here: Shop) -> None:
        hold(here.store)
        run(here.fail, id="t1", errbacks=[here.note.s()])
        assert (stored(here.fleet, "t1") or {})["status"] == "FAILURE"
        assert len(here.waiting()) == 1

    @pytest.mark.parametrize("ignored", [False, True], ids=["stored", "ignored"])
    def test_refused_call_none(self, here: Shop, ignored: bool) -> None:
        called: list[Any] = []

        @here.app.task(name="shop.handle", shared=False)
        def handle(request: Any, error: Any, traceback: Any) -> None:
            called.append(error)

        run(here.fail, id="t1", errbacks=[handle.s()], ignore_result=ignored)
        assert called == []
        assert stored(here.fleet, "t1") is None
        hold(here.store)
        run(here.fail, id="t1", errbacks=[handle.s()], ignore_result=ignored)
        assert len(called) == 1

    def test_refused_do_not_fail_what_was_to_follow(self, here: Shop) -> None:
        follower = [dict(here.add.s(1).set(task_id="t2"))]
        run(here.fail, id="t1", chain=follower)
        assert stored(here.fleet, "t2") is None
        hold(here.store)
        run(here.fail, id="t1", chain=follower)
        assert (stored(here.fleet, "t2") or {})["status"] == "FAILURE"

    def test_a_success_of_another_run_is_not_overruled(self, here: Shop) -> None:
        """Celery writes nothing over a success, and so would not notice that it is refused."""
        called: list[Any] = []

        @here.app.task(name="shop.handle", shared=False)
        def handle(request: Any, error: Any, traceback: Any) -> None:
            called.append(error)

        here.app.backend.store_result("t1", 5, states.SUCCESS)
        run(here.fail, id="t1", errbacks=[handle.s()])
        assert called == []
        assert (stored(here.fleet, "t1") or {})["result"] == 5


class TestChords:
    def fields(self, here: Shop, index: int, **more: Any) -> dict[str, Any]:
        return {
            "id": f"t{index}",
            "group": "g1",
            "group_index": index,
            "chord": chord_of(here),
            **more,
        }

    def test_the_body_is_started_once(self, anywhere: Shop) -> None:
        hold(anywhere.store)
        anywhere.app.backend.set_chord_size("g1", 2)
        for index in (0, 1):
            run(anywhere.add, index, 1, **self.fields(anywhere, index))
        assert [m["headers"]["id"] for m in anywhere.waiting()] == ["body"]

    def test_a_refused_part_is_not_counted(self, anywhere: Shop) -> None:
        anywhere.app.backend.set_chord_size("g1", 2)
        run(anywhere.add, 0, 1, **self.fields(anywhere, 0))
        key = anywhere.app.backend.get_key_for_group("g1", ".j")
        assert anywhere.app.backend.client.exists(key) == 0

    @pytest.mark.parametrize("held", [True, False])
    def test_nor_is_one_without_a_result(self, here: Shop, held: bool) -> None:
        if held:
            hold(here.store)
        here.app.backend.set_chord_size("g1", 2)
        run(here.add, 0, 1, **self.fields(here, 0), ignore_result=True)
        assert parts(here, "g1") == (1 if held else 0)

    @pytest.mark.parametrize("held", [True, False])
    def test_a_failed_part_fails_the_body(self, here: Shop, held: bool) -> None:
        if held:
            hold(here.store)
        here.app.backend.set_chord_size("g1", 1)
        run(here.fail, **self.fields(here, 0))
        assert (stored(here.fleet, "body") or {}).get("status") == ("FAILURE" if held else None)

    def test_taken_between_result_and_part(self, here: Shop) -> None:
        """The result is stored, then the process is frozen; another one runs the task again."""
        backend = here.app.backend
        hold(here.store)
        backend.set_chord_size("g1", 1)
        asked = context(here.add, **self.fields(here, 0))
        backend.store_result("t0", 1, states.SUCCESS, request=asked)
        take_away(here.store)
        with pytest.raises(Taken):
            backend.on_chord_part_return(asked, states.SUCCESS, 1)
        assert here.waiting() == []
        second = Token("v@t", 2, 1)
        hold(here.store, second)
        run(here.add, 0, 1, **self.fields(here, 0), token=second)
        assert [m["headers"]["id"] for m in here.waiting()] == ["body"]

    def test_who_may_start_the_body_starts_it_even_if_its_message_is_taken_then(
        self, here: Shop
    ) -> None:
        """It alone has Celery's claim; refused here, nobody would start the body."""
        backend = here.app.backend
        hold(here.store)
        backend.set_chord_size("g1", 1)
        script = backend._chord_part_return_script

        def counted_and_frozen(**kwargs: Any) -> Any:
            answer = script(**kwargs)
            take_away(here.store)
            return answer

        backend.__dict__["_chord_part_return_script"] = counted_and_frozen
        run(here.add, 0, 1, **self.fields(here, 0))
        assert [m["headers"]["id"] for m in here.waiting()] == ["body"]

    def test_and_only_the_body(self, here: Shop) -> None:
        hold(here.store)
        here.app.backend.set_chord_size("g1", 1)
        asked = context(here.add, **self.fields(here, 0))
        with here.fleet.fence.on_behalf_of(asked):
            here.app.backend.on_chord_part_return(asked, states.SUCCESS, 1)
            take_away(here.store)
            with pytest.raises(Taken):
                here.add.delay(1, 2)
        assert [m["headers"]["id"] for m in here.waiting()] == ["body"]

    def test_a_claim_of_a_process_that_died_is_waited_for(self, here: Shop) -> None:
        """It had counted the last part and claimed the body; its message is run again."""
        hold(here.store)
        here.app.backend.set_chord_size("g1", 1)
        here.store.client.set("celery-taskset-meta-g1.c", "the dead", px=300)
        info = {"exchange": "", "routing_key": "celery", "redelivered": True}
        run(here.add, 0, 1, **self.fields(here, 0, delivery_info=info))
        assert [m["headers"]["id"] for m in here.waiting()] == ["body"]

    def test_a_body_that_was_started_is_not_waited_for(self, here: Shop) -> None:
        hold(here.store)
        here.app.backend.set_chord_size("g1", 1)
        here.store.client.set("celery-taskset-meta-g1.c", "done")
        info = {"exchange": "", "routing_key": "celery", "redelivered": True}
        run(here.add, 0, 1, **self.fields(here, 0, delivery_info=info))
        assert here.waiting() == []

    @pytest.mark.parametrize("held", [True, False])
    def test_a_chord_grows_only_by_who_holds_its_message(self, anywhere: Shop, held: bool) -> None:
        @anywhere.app.task(name="shop.grow", shared=False, bind=True)
        def grow(task: Any) -> None:
            task.add_to_chord(anywhere.add.s(1, 1))

        if held:
            hold(anywhere.store)
        run(grow, **self.fields(anywhere, 0))
        key = anywhere.app.backend.get_key_for_group("g1", ".t")
        assert anywhere.app.backend.client.get(key) == (b"1" if held else None)

    @pytest.mark.parametrize("held", [True, False])
    def test_a_chord_is_begun_only_by_who_holds_its_message(self, here: Shop, held: bool) -> None:
        @here.app.task(name="shop.begin", shared=False)
        def begin() -> None:
            chord([here.add.s(1, 1), here.add.s(2, 2)], chord_of(here))()

        if held:
            hold(here.store)
        run(begin, id="t1")
        sizes = here.store.client.keys("celery-taskset-meta-*.s")
        assert (len(sizes), len(here.waiting())) == ((1, 2) if held else (0, 0))

    def test_its_size_is_not_told_by_who_lost_its_message_meanwhile(self, here: Shop) -> None:
        with (
            here.fleet.fence.on_behalf_of(context(here.add, id="t1")),
            pytest.raises(Taken),
        ):
            here.app.backend.set_chord_size("g1", 2)
        assert here.store.client.keys("celery-taskset-meta-*") == []
