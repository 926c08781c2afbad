"""Builders for fleets that read like a sentence, healthy unless told otherwise.

`an_instance("w1", slots=2, held=2)` is a healthy instance whose two slots are taken;
`a_snapshot(an_instance("w1"), an_instance("w2", state=State.JOINING))` is a fleet of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings, load

#: Server time of every snapshot, s.
NOW = 1_000_000.0
HOUR = 3600.0
GIB = 2**30
TASK = "shop.mail"
SHARED = "celery"


def case(sentence: str, *values: Any) -> Any:
    """A row of a table test: what it shows, and its values."""
    return pytest.param(*values, id=sentence)


def examples(count: int) -> hypothesis_settings:
    """How many examples a property is tried with. A slow machine is no failure."""
    return hypothesis_settings(
        max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


def knobs(**values: Any) -> Settings:
    """The settings with these changed, whatever the environment says."""
    return load(values, env={}).settings


def a_load(**known: Any) -> Load:
    """A heartbeat of a healthy machine that is half idle."""
    healthy: dict[str, Any] = {
        "slots": 4,
        "running": 0,
        "waiting": 0,
        "queued": 0,
        "load_avg": 1.0,
        "cores": 4,
        "memory_used": 2 * GIB,
        "memory_total": 8 * GIB,
        "latency_ms": 10.0,
        "consuming": True,
        "asked_s": 0.5,
    }
    return Load(**{**healthy, **known})


#: Nothing could be read: what a heartbeat says when every probe failed.
UNKNOWN_LOAD = Load()


def a_profile(knows: Iterable[str] = (TASK,), consumes: Iterable[str] = (SHARED,)) -> Profile:
    """What an instance can run."""
    return Profile(tasks=frozenset(knows), queues=frozenset(consumes))


def an_instance(
    name: str = "w1",
    *,
    state: State = State.ACTIVE,
    slots: int | None = 4,
    held: int | None = 0,
    waiting: int | None = 0,
    queued: int | None = 0,
    silent_for: float | None = 1.0,
    consuming: bool | None = True,
    knows: Iterable[str] | None = (TASK,),
    consumes: Iterable[str] = (SHARED,),
    load: Load | None = None,
    **record: Any,
) -> Instance:
    """An instance: `held` tasks take a slot, `waiting` ones are held for a later time.

    `silent_for` seconds ago it sent its last heartbeat (None = it never did), `knows` are its
    registered tasks (None = unknown), `load` replaces the whole heartbeat.
    """
    beat = load or a_load(slots=slots, running=held, waiting=waiting, consuming=consuming)
    known: dict[str, Any] = {
        "epoch": 1,
        "since": NOW - HOUR,
        "beat_at": None if silent_for is None else NOW - silent_for,
        "beats": 700,
        "inflight": None if held is None else held + (waiting or 0),
        "queued": queued,
        "connections": 2,
        "profile": None if knows is None else a_profile(knows, consumes),
        "identity": f"host-of-{name}/4711",
    }
    return Instance(id=name, state=state, load=beat, **{**known, **record})


def a_snapshot(
    *instances: Instance,
    now: float = NOW,
    shared_queue: str = SHARED,
    server_started_at: float | None = NOW - 24 * HOUR,
) -> Snapshot:
    """A fleet at `now`, sorted by id as the store gives it."""
    return Snapshot(
        taken_at=now,
        instances=tuple(sorted(instances, key=lambda i: i.id)),
        shared_queue=shared_queue,
        shared_depth=0,
        server_started_at=server_started_at,
    )
