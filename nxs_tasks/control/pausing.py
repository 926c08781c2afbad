"""Pause a queue or a task for every worker, whenever it starts, until it is resumed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.intent import Kind
from nxs_tasks.runtime import CONTROL_TASKS, Runtime
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.keys import CONTROL_QUEUES
from nxs_tasks.store.places import Places


@dataclass(frozen=True, slots=True)
class Paused:
    """What a pause did."""

    new: bool  # else it was paused before
    hint: str  # what to say if nobody knows the name now; "" if somebody does


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a resumption did."""

    was_paused: bool
    back: int  # tasks that were put aside and are in their queues again


def queue_or_task(queue: str, task: str) -> tuple[Kind, str]:
    """The one that is named. Raises `IntentRefused` if it is none or both."""
    if bool(queue) == bool(task):
        raise IntentRefused("name either a queue or a task")
    return ("queue", queue) if queue else ("task", task)


def pause(runtime: Runtime, kind: Kind, name: str, reason: str = "") -> Paused:
    """Pause, also what nobody knows yet. Raises `IntentRefused` for what cannot be paused."""
    _refuse(runtime, kind, name)
    new = Intents(runtime.store()).pause(kind, name, whoami(), reason)
    return Paused(new, _hint(runtime, kind, name))


def resume(runtime: Runtime, kind: Kind, name: str) -> Resumed:
    """End a pause, and put what it had put aside to the front of its queues, in order."""
    intents = Intents(runtime.store())
    was_paused = intents.resume(kind, name)
    # Afterwards: by now no worker puts one aside any more.
    back = intents.take_back(name) if kind == "task" else 0
    return Resumed(was_paused, back)


def _hint(runtime: Runtime, kind: Kind, name: str) -> str:
    store = runtime.store()
    snapshot = store.snapshot()
    if kind == "queue":
        known = set(Places(store).queues(snapshot, also=runtime.app.amqp.queues))
    else:
        known = set(runtime.app.tasks)
        known.update(*(i.profile.tasks for i in snapshot.instances if i.profile))
    if name in known:
        return ""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f", did you mean {near[0]!r}?" if near else "."
    return f"nobody knows the {kind} {name!r} now{meant} It may come later."


def _refuse(runtime: Runtime, kind: Kind, name: str) -> None:
    keys = runtime.keys
    if not name:
        raise IntentRefused(f"the name of the {kind} to pause is empty")
    if kind == "task" and name.startswith(CONTROL_TASKS):
        raise IntentRefused(
            f"{name} is a job of the control plane and cannot be paused: the fleet lives by it"
        )
    if kind == "queue" and (name == keys.control_queue() or name.startswith(CONTROL_QUEUES + ".")):
        raise IntentRefused(
            f"{name} is a queue of the control plane and cannot be paused: the fleet lives by it"
        )
    if kind == "queue" and name.startswith(keys.own_queue("")):
        raise IntentRefused(
            f"{name} belongs to one instance: pause {runtime.shared_queue}, "
            "which pauses what was placed on instances too"
        )
