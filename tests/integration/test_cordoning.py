"""Instances that are out of service because somebody has said so, on the real store."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.control import cordoning
from nxs_tasks.control.cordoning import cordon, drain, uncordon
from nxs_tasks.control.jobs import lifecycle
from nxs_tasks.control.nodes import instance_of
from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused, Stale
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Instance, Load
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.cordons import Cordons
from nxs_tasks.store.events import Events
from tests.conftest import MakeApp, add_instance, new_store
from tests.integration.claiming import Taker, a_message
from tests.integration.holding import NOTHING, TAKEN, Process
from tests.integration.messages import OWN, SHARED, message, put, task_ids
from tests.integration.test_place_script import place, room_of

pytest_plugins = ["tests.integration.claiming_fixtures"]

WORD = "by eve@desk: new kernel"


def known(store: FleetStore, name: str = "w1") -> Instance:
    found = store.snapshot().get(name)
    assert found is not None
    return found


def told(store: FleetStore, name: str = "w1") -> list[tuple[str, str]]:
    return [(t.event, t.reason) for t in Events(store).pending_transitions(name)]


class TestStore:
    def test_it_stands_in_the_record_with_who_and_why_and_is_recorded(
        self, store: FleetStore
    ) -> None:
        add_instance(store, "w1")
        assert Cordons(store).cordon(known(store), WORD) == ""
        assert known(store).cordoned == WORD
        assert known(store).state is State.ACTIVE
        assert told(store)[-1] == ("cordon", f"cordoned {WORD}")
        assert Cordons(store).uncordon(known(store), "by bob@desk") == WORD
        assert known(store).cordoned == ""
        assert told(store)[-1] == ("uncordon", "taken back into service by bob@desk")

    def test_the_last_word_of_a_person_counts(self, store: FleetStore) -> None:
        add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD)
        assert Cordons(store).cordon(known(store), "by bob@desk") == WORD
        assert known(store).cordoned == "by bob@desk"

    def test_who_is_in_service_is_not_taken_back(self, store: FleetStore) -> None:
        add_instance(store, "w1")
        before = told(store)
        assert Cordons(store).uncordon(known(store), "by bob@desk") is None
        assert told(store) == before

    def test_one_that_has_changed_since_is_left_alone(self, store: FleetStore) -> None:
        add_instance(store, "w1")
        seen = known(store)
        add_instance(store, "w1", identity="host/2")
        for act in (Cordons(store).cordon, Cordons(store).uncordon):
            with pytest.raises(Stale, match="ACTIVE:2"):
                act(seen, WORD)
        assert known(store).cordoned == ""

    def test_who_is_cordoned_takes_nothing_and_then_again(self, store: FleetStore) -> None:
        process = Process(store)
        put(store, OWN, message("own"))
        put(store, SHARED, message("shared"))
        Cordons(store).cordon(known(store), WORD)
        assert process.ask() == [NOTHING, -1]
        assert (task_ids(store, OWN), task_ids(store, SHARED)) == (["own"], ["shared"])
        Cordons(store).uncordon(known(store), WORD)
        assert process.ask()[0] == TAKEN

    def test_what_was_meant_for_its_free_slot_goes_to_the_shared_queue(
        self, store: FleetStore
    ) -> None:
        process = Process(store, slots=2)
        Cordons(store).cordon(known(store), WORD)
        late = {OWN: [message("late")]}
        assert place(store, 1, late, {OWN: room_of(process)}) == 2
        assert task_ids(store, SHARED) == ["late"]

    def test_each_heartbeat_is_told(self, store: FleetStore) -> None:
        epoch = add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD)
        Cordons(store).cordon(known(store), "by bob@desk", drains=True)
        counts: dict[str, Any] = {"succeeded": 0, "failed": 0, "window_days": 7}
        answer = store.heartbeat("w1", epoch, Load(), longest_gap_s=10.0, **counts)
        assert (answer.cordoned, answer.drain) == (WORD, "by bob@desk")


class TestHowLong:
    def end(self, store: FleetStore) -> None:
        at = known(store)
        move: dict[str, Any] = {"event": Event.SILENT_CLOSED, "reason": "by hand"}
        store.transition(
            Transition(instance="w1", epoch=at.epoch, source=at.state, target=State.GONE, **move)
        )

    @pytest.mark.parametrize("ends", [True, False], ids=["ended before", "is replaced"])
    def test_a_cordon_survives_a_restart_under_the_same_name(
        self, store: FleetStore, ends: bool
    ) -> None:
        add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD)
        if ends:
            self.end(store)
        add_instance(store, "w1", identity="host/2")
        assert known(store).cordoned == WORD

    @pytest.mark.parametrize("ends", [True, False], ids=["ended before", "is replaced"])
    def test_a_drain_ends_with_its_process(self, store: FleetStore, ends: bool) -> None:
        add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD, drains=True)
        assert known(store).cordoned == WORD
        if ends:
            self.end(store)
            assert known(store).cordoned == ""
        add_instance(store, "w1", identity="host/2")
        assert known(store).cordoned == ""
        assert store.client.hget(store.keys.instance("w1"), "drain") is None

    def test_a_cordon_is_not_lifted_by_a_drain(self, store: FleetStore) -> None:
        add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD)
        assert Cordons(store).cordon(known(store), "by bob@desk", drains=True) == WORD
        self.end(store)
        add_instance(store, "w1", identity="host/2")
        assert known(store).cordoned == WORD

    def test_a_process_that_announces_itself_again_is_still_drained(
        self, store: FleetStore
    ) -> None:
        epoch = add_instance(store, "w1")
        Cordons(store).cordon(known(store), WORD, drains=True)
        profile = known(store).profile
        assert profile is not None
        store.join("w1", "host/1", profile, seen_epoch=epoch, keep_epoch=epoch)
        assert known(store).cordoned == WORD


class TestNotices:
    def test_who_is_taken_back_is_told_at_once(self, taker: Taker, only_notices: None) -> None:
        store = taker.store
        Cordons(store).cordon(known(store, "w1@t"), WORD)
        store.client.lpush("celery", a_message(1))
        for _ in range(3):
            taker.drain(0.2)
        assert taker.got == []
        Cordons(store).uncordon(known(store, "w1@t"), WORD)
        taker.until(lambda: len(taker.got) == 1, "the message, by a notice")


class TestCommands:
    def test_what_waits_moves_at_once_and_later(self, url: str, make_app: MakeApp) -> None:
        runtime, store = make_app(url).runtime, new_store(url)
        for name in ("w1", "w2"):
            add_instance(store, name)
        put(store, OWN, message("a"), message("b"))
        done = cordon(runtime, "w1", "new  kernel\x1f\n")
        assert (done.instance.id, done.before, done.moved) == ("w1", "", 2)
        assert task_ids(store, SHARED) == ["a", "b"]
        assert known(store).cordoned == f"by {whoami()}: new kernel"
        put(store, OWN, message("late"))
        lifecycle(runtime)
        assert task_ids(store, OWN) == []
        assert uncordon(runtime, "w1").before == f"by {whoami()}: new kernel"
        assert uncordon(runtime, "w1").before is None

    def test_two_that_are_cordoned_do_not_give_each_other_what_they_have(
        self, url: str, make_app: MakeApp
    ) -> None:
        runtime, store = make_app(url).runtime, new_store(url)
        add_instance(store, "w1", tasks=("shop.pay",))
        add_instance(store, "w2", tasks=("shop.pay",))
        add_instance(store, "w3", tasks=("shop.mail",))
        put(store, OWN, message("a"))
        cordon(runtime, "w2")
        assert cordon(runtime, "w1").moved == 0, "nobody in service knows it"
        lifecycle(runtime)
        assert task_ids(store, OWN) == ["a"]

    def test_a_short_name_is_enough_where_only_one_has_it(
        self, url: str, make_app: MakeApp
    ) -> None:
        runtime, store = make_app(url).runtime, new_store(url)
        for name in ("w1@a", "w2@a", "w2@b"):
            add_instance(store, name)
        assert cordon(runtime, "w1").instance.id == "w1@a"
        with pytest.raises(IntentRefused, match="w2@a or w2@b"):
            cordon(runtime, "w2")

    @pytest.mark.parametrize("act", [cordon, uncordon, drain])
    def test_a_name_that_nobody_has_is_told_with_the_nearest(
        self, url: str, make_app: MakeApp, act: Any
    ) -> None:
        runtime = make_app(url).runtime
        with pytest.raises(IntentRefused, match="no instance has the name 'w1'; `nxs status`"):
            act(runtime, "w1")
        add_instance(new_store(url), "web1@t")
        with pytest.raises(IntentRefused, match="did you mean 'web1@t'"):
            act(runtime, "wbe1@t")

    def test_one_that_has_ended_cannot_be_drained_but_cordoned(
        self, url: str, make_app: MakeApp
    ) -> None:
        runtime, store = make_app(url).runtime, new_store(url)
        add_instance(store, "w1", State.GONE)
        with pytest.raises(IntentRefused, match="is GONE already"):
            drain(runtime, "w1")
        assert cordon(runtime, "w1").before == ""
        assert known(store).cordoned

    def test_one_that_changes_meanwhile_is_tried_again(
        self, url: str, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime, store = make_app(url).runtime, new_store(url)
        add_instance(store, "w1")
        looks: list[int] = []
        find = instance_of

        def find_late(name: str, snapshot: Any) -> Instance:
            found = find(name, snapshot)
            looks.append(found.epoch)
            if len(looks) == 1:
                add_instance(store, "w1", identity="host/2")
            return found

        monkeypatch.setattr(cordoning, "instance_of", find_late)
        cordon(runtime, "w1")
        assert looks == [1, 2]
        assert known(store).cordoned
