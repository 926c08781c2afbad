"""Why a task does not run, asked of a real server through an app, and by the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.shelf import DELAYED, PARKED, PAUSED, QUARANTINE, Shelved
from nxs_tasks.model.state import State
from nxs_tasks.store.shelves import Shelves
from tests.conftest import add_instance
from tests.integration.live import PATIENCE_S, Live
from tests.integration.mailroom import OWN, SHARED, Mailroom
from tests.integration.messages import message, put

pytest_plugins = ["tests.integration.live_fixtures", "tests.integration.mailroom"]
MAIL = "shop.mail"


def busy(room: Mailroom, name: str = "w1@t", **load: Any) -> int:
    """An instance whose slots run tasks that acknowledged when they started."""
    full: dict[str, Any] = {"slots": 2, "running": 2, "early": 2, "mean_s": 10.0, **load}
    return add_instance(room.store, name, tasks=(MAIL,), **full)


def urgent(room: Mailroom, queue: str, *ids: str, priority: int = 0) -> None:
    put(room.store, queue, *(message(i, queue, task=MAIL) for i in ids), priority=priority)


class TestInQueues:
    def test_in_the_shared_queue_while_all_slots_are_taken(self, room: Mailroom) -> None:
        busy(room)
        results = [room.mail.delay(n) for n in range(4)]
        told = room.fleet.why(results[3])
        assert told.sentence == (
            "waits in the shared queue: nobody has a free slot (2 of 2 are taken), 3 before it"
        )
        assert [(one.instance, one.reason) for one in told.instances] == [
            ("w1@t", "no free slot, 3 before it")
        ]
        assert told.start is not None
        times = (told.start.earliest_s, told.start.about_s, told.start.latest_s)
        assert times == pytest.approx((10.0, 20.0, 20.0))
        assert told.where.placed, "the submitter has left its reason in the message"

    def test_what_is_more_urgent_is_ahead_of_it_and_what_is_less_is_not(
        self, room: Mailroom
    ) -> None:
        urgent(room, SHARED, "u1", "u2")
        urgent(room, SHARED, "mine", "behind", priority=3)
        urgent(room, SHARED, "late", priority=6)
        where = room.fleet.why("mine").where
        assert (where.queue, where.priority, where.ahead) == (SHARED, 3, 2)
        assert room.fleet.why("behind").where.ahead == 3

    def test_what_other_queues_may_give_before_it(self, room: Mailroom) -> None:
        urgent(room, SHARED, "first", "mine", priority=3)
        room.mail.apply_async(queue="video")  # so that kombu has declared it
        urgent(room, "video", "v1", "v2", "v3", "v4", "v5", priority=3)
        assert room.fleet.why("mine").where.beside == {"video": 1 + 2}
        urgent(room, OWN, "own", priority=3)
        assert room.fleet.why("own").where.beside == {"video": 1}

    def test_in_the_queue_of_an_instance(self, room: Mailroom) -> None:
        busy(room)
        placed = room.mail.delay(1)
        room.move(placed, OWN)
        told = room.fleet.why(placed.id)
        assert (
            told.sentence
            == "was placed on w1@t: no free slot (2 of 2 are taken), nothing before it"
        )
        urgent(room, OWN, "pinned")
        assert room.fleet.why("pinned").sentence == (
            "is pinned by its sender, who put it into the queue of w1@t: "
            "no free slot (2 of 2 are taken), 1 before it"
        )

    def test_a_queue_that_nobody_consumes(self, room: Mailroom) -> None:
        add_instance(room.store, "w1@t", tasks=(MAIL,))
        result = room.mail.apply_async(queue="video")
        told = room.fleet.why(result)
        assert told.sentence == "nobody consumes video: no instance of the fleet takes from it"
        assert [one.reason for one in told.instances] == ["does not consume video"]
        assert told.start is not None
        assert (told.start.about_s, told.start.why) == (None, "nobody takes it now")

    def test_a_pause_says_by_whom_and_why(self, room: Mailroom) -> None:
        add_instance(room.store, "w1@t", tasks=(MAIL,))
        room.fleet.pause(queue=SHARED, reason="relay down")
        told = room.fleet.why(room.mail.delay(1))
        assert told.sentence.startswith("queue celery is paused for 0 s by ")
        assert told.sentence.endswith(": relay down")
        assert [one.reason for one in told.instances] == ["could run it, but it is paused"]

    def test_an_eta_that_is_not_yet_put_aside(self, room: Mailroom) -> None:
        add_instance(room.store, "w1@t", tasks=(MAIL,), running=2, early=2)
        told = room.fleet.why(room.mail.apply_async(countdown=7000))
        assert told.sentence.startswith("its time comes in ")
        assert told.start is not None
        assert told.start.earliest_s == pytest.approx(7000, abs=120)
        # Without a time zone it is meant in that of the app.
        naive = datetime.fromtimestamp(room.store.now() + 7000, UTC).replace(tzinfo=None)
        put(room.store, SHARED, message("naive", SHARED, eta=naive.isoformat()))
        put(room.store, SHARED, message("wrong", SHARED, eta="soon"))
        assert room.fleet.why("naive").sentence.startswith("its time comes in ")
        assert room.fleet.why("wrong").where.at is None


class TestAside:
    @pytest.mark.parametrize(
        ("shelf", "sentence"),
        [
            (DELAYED, "its time has come: it is about to join the end of celery"),
            (PARKED, "is parked: no instance can run it"),
            (PAUSED, "was put aside for a pause that has ended: `nxs resume --task shop.mail`"),
            (QUARANTINE, "is in quarantine until a person releases it: as asked"),
        ],
    )
    def test_on_a_shelf(self, room: Mailroom, shelf: str, sentence: str) -> None:
        add_instance(room.store, "w1@t", tasks=("shop.other",))
        result = room.mail.delay(1)
        room.shelve(result, shelf)
        told = room.fleet.why(result)
        assert (told.waits, told.sentence) == (True, sentence)
        assert told.where.queue == SHARED
        assert [one.reason for one in told.instances] == ["does not register this task"]

    def test_cancelled(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.fleet.cancel(result)
        told = room.fleet.why(result)
        assert (told.known, told.waits, told.where.task) == (True, False, MAIL)
        assert told.sentence.startswith("was cancelled 0 s ago by ")
        assert told.sentence.endswith(": it will not run")

    def test_cancelled_before_it_came(self, room: Mailroom) -> None:
        room.fleet.cancel("never-seen")
        assert room.fleet.why("never-seen").sentence.endswith(": it will not run")

    def test_held(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        add_instance(room.store, "w1@t", tasks=(MAIL,))
        room.hold(result)
        told = room.fleet.why(result)
        assert (told.known, told.waits) == (True, False)
        assert told.sentence == "is held by w1@t: it runs there, or is about to"

    def test_held_by_a_process_that_is_gone(self, room: Mailroom) -> None:
        result = room.mail.delay(1)
        room.hold(result, "w9@t")
        add_instance(room.store, "w1@t", tasks=(MAIL,))
        told = room.fleet.why(result)
        assert told.waits
        assert "a process of w9@t that is gone" in told.sentence
        assert [one.reason for one in told.instances] == [
            "could run it, but it is about to be rescued"
        ]

    def test_done_or_unknown(self, room: Mailroom) -> None:
        room.app.backend.store_result("done", None, "SUCCESS")
        told = room.fleet.why("done")
        assert (told.known, told.waits) == (True, False)
        assert told.sentence == "has ended: its result says SUCCESS"
        unknown = room.fleet.why("nobody")
        assert (unknown.known, unknown.waits) == (False, False)
        with pytest.raises(IntentRefused, match="empty"):
            room.fleet.why("")


def test_what_moves_while_it_is_looked_for_is_found(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back off a shelf when the queues have been read and the shelf has not."""
    result = room.mail.delay(1)
    room.shelve(result, PARKED)
    find, looks = Shelves.find, [0]

    def give_back_first(shelves: Shelves, shelf: str, task_id: str) -> list[Shelved]:
        looks[0] += 1
        shelves.take(PARKED, list(shelves.entries(PARKED)), "back")
        return find(shelves, shelf, task_id)

    monkeypatch.setattr(Shelves, "find", give_back_first)
    assert room.fleet.why(result).where.place == "queue"
    assert looks[0] >= 2, "the first look went past it"


def test_looking_changes_nothing(room: Mailroom) -> None:
    busy(room)
    result = room.mail.delay(1)
    before = room.dump()
    room.fleet.why(result)
    room.fleet.why("nobody")
    assert room.dump() == before


class TestCommand:
    def test_it_prints_the_sentence_the_start_and_each_instance(
        self, live: Live, shop: Any
    ) -> None:
        full: dict[str, Any] = {"slots": 2, "running": 2, "early": 2, "mean_s": 10.0}
        add_instance(live.store, "w1@t", tasks=("shop.nap",), **full)
        add_instance(live.store, "w2@t", tasks=("shop.nap",), **{**full, "consuming": False})
        results = [shop.nap.delay(n) for n in range(3)]
        done = live.nxs("why", results[2].id)
        assert done.returncode == 0, done.stderr
        assert [line.rstrip() for line in done.stdout.splitlines()] == [
            f"task {results[2].id} (shop.nap)",
            "  waits in the shared queue: nobody has a free slot (2 of 2 are taken), 2 before it",
            "  in celery, priority 0, 2 ahead of it",
            "  expected start: in about 15 s (10 s to 20 s): "
            "3 task(s) have to end first on 2 slot(s)",
            "INSTANCE  WHY NOT THERE",
            "w1@t      no free slot, 2 before it",
            "w2@t      its consumer takes no work",
        ]
        told = json.loads(live.nxs("why", results[2].id, "--json").stdout)
        assert told["waits"]
        assert (told["place"], told["queue"], told["ahead"]) == ("queue", "celery", 2)
        assert told["instances"]["w2@t"] == "its consumer takes no work"
        assert told["start"]["about_s"] == pytest.approx(15.0)

    def test_what_does_not_wait_is_one_line_and_unknown_is_exit_1(
        self, live: Live, shop: Any
    ) -> None:
        result = shop.nap.delay(1)
        shop.fleet.cancel(result)
        done = live.nxs("why", result.id)
        assert done.returncode == 0
        first, second = done.stdout.splitlines()
        assert first == f"task {result.id} (shop.nap)"
        assert second.endswith(": it will not run")
        unknown = live.nxs("why", "nobody")
        assert unknown.returncode == 1
        assert "nothing is known of it" in unknown.stdout
        told = json.loads(live.nxs("why", "nobody", "--json").stdout)
        assert (told["known"], told["waits"], told["start"]) == (False, False, None)


def test_of_a_real_worker_whose_slot_is_taken(live: Live, shop: Any) -> None:
    live.control_plane()
    live.worker("w1@t", 1)
    live.until_state(State.ACTIVE, "w1@t")
    shop.nap.delay(0.2).get(timeout=PATIENCE_S)
    running = shop.nap.delay(600.0)
    live.until(lambda: live.instance("w1@t").inflight == 1, "it runs")
    shop.fleet.submitter._reset()
    waiting = [shop.nap.delay(0.2).id for _ in range(3)]
    runs = shop.fleet.why(running)
    assert (runs.known, runs.waits) == (True, False)
    assert runs.sentence.startswith("is held by w1@t for ")
    live.until(lambda: live.instance("w1@t").load.mean_s is not None, "it tells its mean")
    told = shop.fleet.why(waiting[2])
    lead = "waits in the shared queue: nobody has a free slot (1 of 1 are taken), 2 before it"
    assert told.sentence == lead
    assert [one.reason for one in told.instances] == ["no free slot, 2 before it"]
    mean = live.instance("w1@t").load.mean_s
    assert told.start is not None
    assert mean is not None
    assert told.start.about_s == pytest.approx(3 * mean)
