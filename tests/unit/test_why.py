"""Why a task does not run: the sentence, each instance, and what does not wait at all."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.instance import Instance, Profile
from nxs_tasks.model.intent import Cancelled, Pause
from nxs_tasks.model.state import State
from nxs_tasks.model.why import Whereabouts, Why, span
from nxs_tasks.policy.fleet.placement import DIRECT_ONLY
from nxs_tasks.policy.fleet.why import demand_of, why
from tests.unit.builders import (
    GIB,
    NOW,
    SHARED,
    TASK,
    a_load,
    a_snapshot,
    an_instance,
    case,
    knobs,
)

SPEC = knobs()
NO_GPU = "has no tag 'gpu', which the task needs"
CANCELLED = Cancelled(task_id="t", at=NOW - 20, by="ann@desk", until=NOW + 100)
PAUSED_QUEUE = Pause(kind="queue", name=SHARED, since=NOW - 300, by="ann@desk", reason="relay down")
PAUSED_TASK = Pause(kind="task", name=TASK, since=None, by="")


def full(name: str, **known: Any) -> Instance:
    return an_instance(name, slots=2, held=2, **known)


def unable(name: str) -> Instance:
    profile = Profile(tasks=frozenset(), queues=frozenset({SHARED}), unable={TASK: NO_GPU})
    return an_instance(name, profile=profile)


def swamped(name: str) -> Instance:
    load = a_load(load_avg=9.0, memory_used=8 * GIB, latency_ms=900.0)
    return an_instance(name, load=load)


def asked(*instances: Instance, shared_depth: int = 1, **where: Any) -> Why:
    known: dict[str, Any] = {"place": "queue", "queue": SHARED, "task": TASK, **where}
    found = Whereabouts(task_id="t", **known)
    snapshot = a_snapshot(*instances)
    object.__setattr__(snapshot, "shared_depth", shared_depth)
    return why(found, snapshot, SPEC, NOW)


def own(name: str, *instances: Instance, **where: Any) -> Why:
    known = {"queue": f"nxs.default/{name}", "own_of": name, "placed": True, **where}
    return asked(*instances, **{"shared_depth": 0, **known})


def reasons(told: Why) -> dict[str, str]:
    return {one.instance: one.reason for one in told.instances}


# --- in the shared queue, or a named one ---------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "where", "sentence"),
    [
        case(
            "all are busy",
            [full("w1"), full("w2")],
            {"ahead": 7},
            "waits in the shared queue: nobody has a free slot (4 of 4 are taken), 7 before it",
        ),
        case(
            "a slot is free",
            [full("w1"), an_instance("w2")],
            {},
            "waits in the shared queue: a slot is free, nothing before it",
        ),
        case(
            "only one can run it",
            [full("w1"), unable("w2")],
            {},
            "waits in the shared queue, and only w1 can run it: "
            "nobody has a free slot (2 of 2 are taken), nothing before it",
        ),
        case(
            "its sender named the queue",
            [full("w1", consumes=["video"])],
            {"queue": "video"},
            "was sent to video by name: nobody has a free slot (2 of 2 are taken), nothing",
        ),
        case(
            "nobody consumes its queue",
            [full("w1")],
            {"queue": "video"},
            "nobody consumes video: no instance of the fleet takes from it",
        ),
        case(
            "who consumed it is gone",
            [an_instance("w1", consumes=["video"], state=State.GONE), full("w2")],
            {"queue": "video"},
            "nobody consumes video: no instance of the fleet takes from it",
        ),
        case(
            "who could run it too is gone",
            [full("w1"), unable("w2"), full("w3", state=State.GONE)],
            {},
            "waits in the shared queue, and only w1 can run it: ",
        ),
        case(
            "who consumes it takes nothing",
            [an_instance("w1", consumes=["video"], silent_for=20.0), full("w2")],
            {"queue": "video"},
            "nobody takes from video now: w1 silent for 20 s",
        ),
        case(
            "many consume it and take nothing",
            [an_instance(f"w{n}", state=State.LEAVING) for n in range(5)],
            {},
            "nobody takes from celery now: w0 is LEAVING, w1 is LEAVING, w2 is LEAVING and 2 more",
        ),
        case(
            "who takes it cannot run it, and somebody else can",
            [unable("w1"), full("w2", consumes=["video"])],
            {},
            f"nobody who takes from celery can run it ({NO_GPU}): who takes it sends it on to w2",
        ),
        case(
            "nobody can run it",
            [unable("w1"), an_instance("w2", knows=["shop.other"])],
            {},
            "nobody who takes from celery can run it (each for a reason of its own): "
            "who takes it parks it",
        ),
        case("there is nobody", [], {}, "nobody consumes celery: no instance of the fleet takes "),
    ],
)
def test_why_it_waits_in_a_queue(
    instances: list[Instance], where: dict[str, Any], sentence: str
) -> None:
    told = asked(*instances, **where)
    assert told.waits
    assert told.known
    assert told.sentence.startswith(sentence)
    assert len(told.instances) == len(instances)


def test_each_instance_has_its_reason() -> None:
    told = asked(
        full("full"),
        an_instance("free"),
        swamped("swamped"),
        an_instance("own", slots=2, held=1, queued=3),
        unable("unable"),
        an_instance("ignorant", knows=["shop.other"]),
        an_instance("joining", state=State.JOINING),
        an_instance("video", consumes=["video"]),
        an_instance("out", ejected_until=NOW + 12, ejected_why="5 tasks in a row failed"),
        ahead=2,
    )
    assert reasons(told) == {
        "full": "no free slot, 2 before it",
        "free": "has a free slot and takes it in its turn, 2 before it",
        "swamped": "score 0.239 is not above 0.5: "
        "nothing is placed there, but it takes from celery",
        "own": "its free slots go to the 3 that wait for it alone",
        "unable": NO_GPU,
        "ignorant": "does not register this task",
        "joining": "is JOINING",
        "video": "does not consume celery",
        "out": "ejected for 12 s more: 5 tasks in a row failed",
    }


def test_who_is_degraded_is_told_with_what_is_wrong() -> None:
    slow = a_load(slots=2, running=2, unhealthy="shop.pay takes 2.4 s, 0.9 s before")
    told = asked(full("w1", state=State.DEGRADED, load=slow), full("w2", load=slow))
    assert reasons(told) == {
        "w1": "no free slot, nothing before it (DEGRADED: shop.pay takes 2.4 s, 0.9 s before)",
        "w2": "no free slot, nothing before it",
    }


def test_in_a_named_queue_who_does_not_consume_it_is_told_so() -> None:
    told = asked(full("w1", consumes=["video"]), an_instance("w2"), queue="video")
    assert reasons(told) == {
        "w1": "no free slot, nothing before it",
        "w2": "does not consume video",
    }


def test_what_a_task_declares_is_that_of_the_workers() -> None:
    traits = {TASK: Traits(slots=2, memory=6 * GIB, io=True)}
    profile = Profile(
        tasks=frozenset({TASK}), queues=frozenset({SHARED}), traits=traits, memory=5 * GIB
    )
    where = Whereabouts(task_id="t", place="queue", queue=SHARED, task=TASK, key="model:a")
    told = demand_of(where, a_snapshot(an_instance("w1", profile=profile)))
    assert (told.task, told.key) == (TASK, "model:a")
    assert (told.slots, told.memory, told.io) == (2, 6 * GIB, True)
    found = asked(an_instance("w1", profile=profile))
    assert found.sentence.endswith(": nobody has room for what it declares, nothing before it")
    assert reasons(found) == {"w1": "no room for what this task declares, nothing before it"}


# --- in the own queue of an instance -------------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "where", "sentence"),
    [
        case(
            "placed, and its slots are taken",
            [full("w1"), full("w2")],
            {"ahead": 1},
            "was placed on w1: no free slot (2 of 2 are taken), 1 before it",
        ),
        case(
            "placed, and about to start",
            [an_instance("w1"), full("w2")],
            {},
            "was placed on w1: a slot is free, nothing before it",
        ),
        case(
            "pinned",
            [full("w1"), an_instance("w2")],
            {"placed": False},
            "is pinned by its sender, who put it into the queue of w1: no free slot (2 of 2",
        ),
        case(
            "for its warm cache",
            [full("w1", load=a_load(slots=2, keys=("model:a",))), full("w2")],
            {"key": "model:a"},
            "waits for the warm cache of w1: no free slot (2 of 2 are taken)",
        ),
        case(
            "only it can run it",
            [full("w1"), unable("w2")],
            {},
            "only w1 can run it: no free slot (2 of 2 are taken)",
        ),
        case(
            "not everybody can run it",
            [full("w1"), full("w2"), unable("w3")],
            {"placed_why": DIRECT_ONLY},
            "not every instance can run it, and it was placed on w1: no free slot (2 of 2",
        ),
        case(
            "its instance leaves",
            [an_instance("w1", state=State.LEAVING), full("w2")],
            {},
            "was placed on w1: is LEAVING",
        ),
        case(
            "its instance cannot run it any more",
            [unable("w1"), full("w2"), full("w3")],
            {},
            f"was placed on w1: {NO_GPU}",
        ),
        case(
            "its instance is forgotten",
            [full("w2")],
            {},
            "waits for w1, which is no part of the fleet any more: it runs when a worker of that",
        ),
    ],
)
def test_why_it_waits_for_an_instance(
    instances: list[Instance], where: dict[str, Any], sentence: str
) -> None:
    told = own("w1", *instances, **where)
    assert told.waits
    assert told.sentence.startswith(sentence)


def test_why_others_do_not_take_what_waits_for_an_instance() -> None:
    told = own("w1", full("w1", queued=1), full("w2"), unable("w3"), an_instance("w4"), ahead=4)
    assert reasons(told) == {
        "w1": "no free slot, 4 before it",
        "w2": "no free slot",
        "w3": NO_GPU,
        "w4": "is idle, and takes over what waits for w1 within seconds",
    }


@pytest.mark.parametrize(
    ("where", "w1", "shared_depth", "reason"),
    [
        case("pinned", {"placed": False}, full("w1", queued=1), 0, "but its sender chose w1"),
        case("not idle", {}, full("w1", queued=1), 3, "but it is in the queue of w1"),
        case(
            "w1 starts it itself",
            {},
            an_instance("w1", queued=1),
            0,
            "but it is in the queue of w1",
        ),
        case(
            "warm",
            {"key": "model:a"},
            full("w1", queued=1, load=a_load(slots=2, keys=("model:a",))),
            0,
            "but the cache is warm at w1",
        ),
    ],
)
def test_why_an_idle_one_does_not_take_it_over(
    where: dict[str, Any], w1: Instance, shared_depth: int, reason: str
) -> None:
    told = own("w1", w1, an_instance("w2"), shared_depth=shared_depth, **where)
    assert reasons(told)["w2"] == f"has a free slot, {reason}"


def test_from_its_own_queue_an_instance_takes_whatever_others_it_was_started_for() -> None:
    told = own("w1", full("w1", consumes=["video"]))
    assert told.sentence.startswith("was placed on w1: no free slot")
    assert reasons(told) == {"w1": "no free slot, nothing before it"}


# --- held up everywhere --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "sentence", "reason"),
    [
        case(
            "its queue is paused",
            {"pauses": (PAUSED_QUEUE,)},
            "queue celery is paused for 5 min by ann@desk: relay down",
            "it is paused",
        ),
        case(
            "an own queue is paused by the name of the shared one",
            {"pauses": (PAUSED_QUEUE,), "queue": "nxs.default/w1", "own_of": "w1"},
            "queue celery is paused for 5 min by ann@desk: relay down",
            "it is paused",
        ),
        case(
            "its task is paused",
            {"pauses": (PAUSED_TASK,)},
            "task shop.mail is paused",
            "it is paused",
        ),
        case(
            "put aside for a pause",
            {"place": "paused", "at": NOW - 5, "pauses": (PAUSED_TASK,)},
            "task shop.mail is paused",
            "it is paused",
        ),
        case(
            "put aside for a pause that has ended",
            {"place": "paused", "at": NOW - 5, "pauses": (PAUSED_QUEUE,)},
            "was put aside for a pause that has ended: `nxs resume --task shop.mail`",
            "it is about to go on",
        ),
        case(
            "delayed",
            {"place": "delayed", "at": NOW + 40},
            "is delayed: its time comes in 40 s, then it joins the end of celery",
            "it is not time yet",
        ),
        case(
            "due",
            {"place": "delayed", "at": NOW - 1},
            "its time has come: it is about to join the end of celery",
            "it is about to go on",
        ),
        case(
            "has an ETA and is not yet taken",
            {"at": NOW + 40},
            "its time comes in 40 s: who takes it before puts it aside until then",
            "it is not time yet",
        ),
        case(
            "parked while somebody can run it",
            {"place": "parked", "at": NOW - 5},
            "was parked, and w1 can run it now: about to be sent there",
            "it is parked",
        ),
        case(
            "in quarantine",
            {"place": "quarantine", "at": NOW - 5, "reason": "lost its holder 3 times, last w9"},
            "is in quarantine until a person releases it: lost its holder 3 times, last w9",
            "it is in quarantine",
        ),
        case(
            "cancelled, and its worker shall tell so",
            {"cancelled": CANCELLED},
            "was cancelled 20 s ago by ann@desk: the worker that meets it tells so",
            "it is cancelled",
        ),
        case(
            "held by a process that is gone",
            {"place": "held", "holder": "w9", "epoch": 4},
            "is held by a process of w9 that is gone (there is no record of its instance): about",
            "it is about to be rescued",
        ),
    ],
)
def test_what_holds_it_up_everywhere(where: dict[str, Any], sentence: str, reason: str) -> None:
    told = asked(an_instance("w1"), unable("w2"), **where)
    assert told.waits
    assert told.sentence.startswith(sentence)
    assert reasons(told) == {"w1": f"could run it, but {reason}", "w2": NO_GPU}
    assert told.start is not None
    assert told.start.about_s is told.start.latest_s is None
    assert told.start.why == told.sentence


def test_another_pause_is_none_of_its_business() -> None:
    other = Pause(kind="queue", name="video", since=None, by="")
    name = Pause(kind="task", name="shop.other", since=None, by="")
    assert "paused" not in asked(full("w1"), pauses=(other, name)).sentence


def test_parked_because_nobody_can_run_it() -> None:
    told = asked(unable("w1"), place="parked", at=NOW - 5)
    assert told.sentence == "is parked: no instance can run it"
    assert reasons(told) == {"w1": NO_GPU}


def test_what_is_early_starts_not_before_its_time() -> None:
    told = asked(an_instance("w1"), place="delayed", at=NOW + 40)
    assert told.start is not None
    assert told.start.earliest_s == pytest.approx(40.0)
    cancelled = asked(an_instance("w1"), place="delayed", at=NOW + 40, cancelled=CANCELLED)
    assert cancelled.start is not None
    assert cancelled.start.earliest_s is None


# --- what does not wait --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "known", "sentence"),
    [
        case(
            "runs",
            {"place": "held", "holder": "w1", "epoch": 1, "at": NOW - 180},
            True,
            "is held by w1 for 3 min: it runs there, or is about to",
        ),
        case(
            "runs, and is cancelled",
            {"place": "held", "holder": "w1", "epoch": 1, "cancelled": CANCELLED},
            True,
            "is held by w1: it runs there, or is about to "
            "(was cancelled 20 s ago by ann@desk: it is not run again)",
        ),
        case(
            "cancelled",
            {"place": "cancelled", "cancelled": CANCELLED},
            True,
            "was cancelled 20 s ago by ann@desk: it will not run",
        ),
        case(
            "done",
            {"place": "nowhere", "result": "SUCCESS"},
            True,
            "has ended: its result says SUCCESS",
        ),
        case(
            "runs without a message",
            {"place": "nowhere", "result": "STARTED"},
            True,
            "its result says STARTED, and there is no message of it",
        ),
        case("unknown", {"place": "nowhere"}, False, "nothing is known of it: no message"),
    ],
)
def test_what_does_not_wait(where: dict[str, Any], known: bool, sentence: str) -> None:
    told = asked(an_instance("w1"), **where)
    assert (told.waits, told.known) == (False, known)
    assert told.sentence.startswith(sentence)
    assert (told.instances, told.start) == ((), None)


def test_an_affinity_key_is_printed_nowhere() -> None:
    told = own("w1", full("w1", load=a_load(slots=2, keys=("k-4711",))), key="k-4711")
    assert "4711" not in repr(told)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (45.4, "45 s"), (180.0, "3 min"), (7200.0, "2 h"), (5 * 86400.0, "5 days")],
)
def test_a_time_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text
