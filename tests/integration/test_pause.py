"""Pausing through a real app, with nobody up."""

from __future__ import annotations

import pytest

from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.shelf import PAUSED
from tests.conftest import add_instance
from tests.integration.mailroom import OWN, Mailroom

pytest_plugins = ["tests.integration.mailroom"]


class TestPausing:
    def test_what_nobody_knows_is_paused_all_the_same_with_a_hint(self, room: Mailroom) -> None:
        add_instance(room.store, "w1@t", tasks=("shop.far",))
        assert room.fleet.pause(task="shop.mail").hint == ""
        assert room.fleet.pause(task="shop.far").hint == "", "an instance knows it"
        done = room.fleet.pause(task="shop.mial", reason="relay down")
        assert done.new
        assert "did you mean 'shop.mail'?" in done.hint
        assert "nobody knows the queue 'vidoe'" in room.fleet.pause(queue="vidoe").hint
        room.mail.apply_async(queue="video")
        assert room.fleet.pause(queue="video").hint == "", "kombu has declared it"
        names = [(p.kind, p.name, p.reason) for p in room.fleet.intents().pauses]
        assert names == [
            ("queue", "video", ""),
            ("queue", "vidoe", ""),
            ("task", "shop.far", ""),
            ("task", "shop.mail", ""),
            ("task", "shop.mial", "relay down"),
        ]

    @pytest.mark.parametrize(
        ("what", "why"),
        [
            ({"queue": "nxs.control"}, "control plane"),
            ({"queue": "nxs.control.other"}, "control plane"),
            ({"queue": OWN}, "pause celery"),
            ({"task": "nxs.control.lifecycle"}, "control plane"),
            ({}, "either a queue or a task"),
            ({"queue": "video", "task": "shop.mail"}, "either a queue or a task"),
        ],
    )
    def test_what_cannot_be_paused_is_refused(
        self, room: Mailroom, what: dict[str, str], why: str
    ) -> None:
        with pytest.raises(IntentRefused, match=why):
            room.fleet.pause(**what)
        assert room.fleet.intents().pauses == ()

    def test_what_was_put_aside_comes_back(self, room: Mailroom) -> None:
        room.fleet.pause(task="shop.mail")
        results = [room.mail.delay(n) for n in range(2)]
        for result in reversed(results):
            room.shelve(result, PAUSED)
        done = room.fleet.resume(task="shop.mail")
        assert (done.was_paused, done.back) == (True, 2)
        assert sorted(room.ids()) == sorted(r.id for r in results)

    def test_a_resumption_tells_whether_it_was_paused(self, room: Mailroom) -> None:
        room.fleet.pause(queue="video")
        assert room.fleet.resume(queue="video").was_paused
        assert not room.fleet.resume(queue="video").was_paused
