"""Why an instance can never run a task, whatever runs there."""

from __future__ import annotations

import json

import pytest

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.instance import Profile
from nxs_tasks.worker.profile import why_unable
from tests.unit.builders import case

GB = 10**9


@pytest.mark.parametrize(
    ("traits", "why"),
    [
        case("it declares nothing", Traits(), ""),
        case("it needs what is there", Traits(needs=("gpu", "ssd")), ""),
        case(
            "it needs another tag", Traits(needs=("tpu",)), "has no tag 'tpu', which the task needs"
        ),
        case(
            "of several that are missing the first",
            Traits(needs=("gpu", "tpu", "fpga")),
            "has no tag 'fpga', which the task needs",
        ),
        case("all slots", Traits(slots=4), ""),
        case("more slots", Traits(slots=5), "has 4 slots, and the task takes 5"),
        case("all memory", Traits(memory=8 * GB), ""),
        case(
            "more memory",
            Traits(memory=8 * GB + 1),
            "has 8 GB for tasks, and the task takes 8 GB",
        ),
        case(
            "much more memory",
            Traits(memory=900 * GB),
            "has 8 GB for tasks, and the task takes 900 GB",
        ),
        case("it waits for disk or network", Traits(io=True), ""),
        case("it wants a cache", Traits(affinity="{a}", arguments=("a",)), ""),
    ],
)
def test_why_a_task_never_runs_here(traits: Traits, why: str) -> None:
    assert why_unable(traits, ("gpu", "ssd"), 4, 8 * GB) == why


def test_what_is_unknown_forbids_nothing() -> None:
    assert why_unable(Traits(slots=99, memory=99 * GB), (), None, None) == ""


def test_a_profile_tells_all_of_it() -> None:
    profile = Profile(
        tasks=frozenset({"a"}),
        queues=frozenset({"celery"}),
        shared="celery",
        tags=("gpu",),
        versions=(("celery", "5.7"),),
        traits={"a": Traits(slots=2), "b": Traits(needs=("tpu",))},
        memory=5,
        unable={"b": "has no tag 'tpu', which the task needs"},
    )
    assert Profile.from_dict(json.loads(json.dumps(profile.as_dict()))) == profile


def test_a_profile_of_an_older_version_tells_none_of_it() -> None:
    old = {"tasks": ["a"], "queues": ["celery"], "tags": [], "versions": {}}
    profile = Profile.from_dict(old)
    assert (profile.traits, profile.memory, profile.unable, profile.shared) == ({}, None, {}, "")
