"""Where a task that runs may go on, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.moving import elsewhere, why_not_to
from tests.unit.builders import case

KNOWS = Profile(tasks=frozenset({"shop.render"}), queues=frozenset({"celery"}))
NAIVE = Profile(tasks=frozenset(), queues=frozenset({"celery"}))
NO_GPU = "has no tag 'gpu', which the task needs"
UNABLE = Profile(
    tasks=frozenset({"shop.add"}), queues=frozenset({"celery"}), unable={"shop.render": NO_GPU}
)


def instance(id_: str, **known: Any) -> Instance:
    fields: dict[str, Any] = {
        "state": State.ACTIVE,
        "epoch": 1,
        "since": 0.0,
        "beat_at": 100.0,
        "beats": 3,
        "load": Load(slots=2, consuming=True),
        "profile": KNOWS,
        "inflight": 0,
        "queued": 0,
    }
    return Instance(id=id_, **{**fields, **known})


def fleet(*others: Instance) -> Snapshot:
    found = sorted((instance("w1"), *others), key=lambda i: i.id)
    return Snapshot(taken_at=100.0, instances=tuple(found), shared_queue="celery")


def why(target: str, *others: Instance, queue: str = "celery") -> str:
    return why_not_to(target, "shop.render", "w1", queue, fleet(*others))


def test_to_another_that_is_active_and_knows_it() -> None:
    assert why("w2", instance("w2")) == ""


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        case("joining", {"state": State.JOINING}, "is JOINING, not ACTIVE"),
        case("leaving", {"state": State.LEAVING}, "is LEAVING, not ACTIVE"),
        case("stopped", {"stopped": True}, "its process has stopped"),
        case("deaf", {"load": Load(consuming=False)}, "its consumer takes no work"),
        case("unknown", {"profile": None}, "its registered tasks are unknown"),
        case("ignorant", {"profile": NAIVE}, "does not know shop.render"),
        case("unable", {"profile": UNABLE}, NO_GPU),
    ],
)
def test_why_not_to_another(known: dict[str, Any], reason: str) -> None:
    assert why("w2", instance("w2", **known)) == reason
    assert elsewhere("shop.render", "w1", "celery", fleet(instance("w2", **known))) == ()


def test_why_not_to_itself_or_to_nobody() -> None:
    assert why("w1") == "it runs there already"
    assert why("w9") == "there is no such instance"


def test_a_queue_that_was_named_is_respected() -> None:
    takes = Profile(tasks=KNOWS.tasks, queues=frozenset({"celery", "gpu"}))
    assert "does not consume gpu" in why("w2", instance("w2"), queue="gpu")
    assert why("w2", instance("w2", profile=takes), queue="gpu") == ""


def test_the_shortest_line_for_each_slot_comes_first() -> None:
    others = (
        instance("w2", inflight=2),
        instance("w3", inflight=3, load=Load(slots=4)),
        instance("w4", queued=4),
        instance("w5"),
    )
    assert elsewhere("shop.render", "w1", "celery", fleet(*others)) == ("w5", "w3", "w2", "w4")
