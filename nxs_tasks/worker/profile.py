"""What this worker can run: the tasks that it has, less those that need what it has not."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from nxs_tasks.model.demand import PLAIN, Traits
from nxs_tasks.model.instance import Profile
from nxs_tasks.probes.host import read_host
from nxs_tasks.runtime import Runtime
from nxs_tasks.traits import UNITS, declared

BUILT_IN = "celery."


def read_profile(worker: Any, runtime: Runtime, queues: Iterable[str]) -> Profile:
    """The profile of a worker. Raises `SettingError` for a task that declares nonsense."""
    settings = runtime.settings
    tasks = {
        name: declared(task).traits
        for name, task in worker.app.tasks.items()
        if not name.startswith(BUILT_IN)
    }
    traits = {name: found for name, found in tasks.items() if found != PLAIN}
    slots = getattr(worker, "max_concurrency", None) or getattr(worker, "concurrency", None)
    memory = _memory(settings.task_memory)
    reasons = ((name, why_unable(t, settings.tag_set, slots, memory)) for name, t in traits.items())
    unable = {name: why for name, why in reasons if why}
    return Profile(
        tasks=frozenset(worker.app.tasks) - unable.keys(),
        queues=frozenset(queues),
        shared=runtime.shared_queue,
        tags=settings.tag_set,
        versions=tuple(sorted(_versions().items())),
        traits=traits,
        memory=memory,
        unable=unable,
    )


def why_unable(traits: Traits, tags: tuple[str, ...], slots: int | None, memory: int | None) -> str:
    """Why an instance with these can never run a task; "" if it can."""
    missing = sorted(set(traits.needs) - set(tags))
    if missing:
        return f"has no tag {missing[0]!r}, which the task needs"
    if slots is not None and traits.slots > slots:
        return f"has {slots} slots, and the task takes {traits.slots}"
    if memory is not None and traits.memory > memory:
        return (
            f"has {memory / UNITS['GB']:.3g} GB for tasks, "
            f"and the task takes {traits.memory / UNITS['GB']:.3g} GB"
        )
    return ""


def _memory(setting_gb: float) -> int | None:
    return int(setting_gb * UNITS["GB"]) if setting_gb else read_host().memory_total


def _versions() -> dict[str, str]:
    packages = {"nxs": "nxs-tasks", "celery": "celery", "kombu": "kombu", "redis": "redis"}
    found = {name: version(package) for name, package in packages.items()}
    return {**found, "python": platform.python_version()}
