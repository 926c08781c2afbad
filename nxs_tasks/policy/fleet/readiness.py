"""Who takes work at all, and who can run a task: what is asked before any score."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nxs_tasks.model.demand import PLAIN, Traits
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, PLACEABLE, State
from nxs_tasks.settings import Settings


def unready(instance: Instance, snapshot: Snapshot, settings: Settings) -> str:
    """Why an instance takes no direct work at all, whatever the task; "" if it does."""
    if instance.state not in PLACEABLE:
        return f"is {instance.state}"
    if instance.stopped:
        return "its process has stopped"
    taken_out = out_of_service(instance, snapshot.taken_at)
    if taken_out:
        return taken_out
    if instance.beat_at is None:
        return "no heartbeat yet"
    age = snapshot.taken_at - instance.beat_at
    if age > settings.silent_after:
        return f"silent for {age:.0f} s"
    if instance.load.consuming is False:
        return "its consumer takes no work"
    if instance.profile is None:
        return "its registered tasks are unknown"
    if snapshot.shared_queue not in instance.profile.queues:
        return f"does not consume {snapshot.shared_queue}"
    if instance.load.slots is None or instance.held is None:
        return "its free slots are unknown"
    return ""


def out_of_service(instance: Instance, now: float) -> str:
    """Why a healthy instance takes no work: somebody has said so; "" if nobody has."""
    if instance.cordoned:
        return f"cordoned {instance.cordoned}"
    if instance.ejected_until > now:
        return f"ejected for {instance.ejected_until - now:.0f} s more: {instance.ejected_why}"
    if instance.flapping.until > now:
        left = instance.flapping.until - now
        return f"withheld for {left:.0f} s more: {instance.flapping.why}"
    return ""


def traits_of(task: str, instances: Iterable[Instance]) -> Traits:
    """What the workers tell of a task."""
    profiles = (i.profile for i in instances)
    return next((p.traits[task] for p in profiles if p is not None and task in p.traits), PLAIN)


def knows(instance: Instance, task: str) -> bool:
    """Whether an instance can run a task."""
    return instance.profile is not None and task in instance.profile.tasks


def lack(instance: Instance, task: str) -> str:
    """What an instance lacks to run a task that it cannot run."""
    unable = instance.profile.unable if instance.profile is not None else {}
    return unable.get(task) or "does not register this task"


def _lives(instance: Instance) -> bool:
    return not (instance.state in ENDED or instance.state is State.LEAVING or instance.stopped)


def _takes_shared(instance: Instance, snapshot: Snapshot) -> bool:
    # Of an unknown profile the worst is assumed: a task that is discarded is lost.
    profile = instance.profile
    return _lives(instance) and (profile is None or snapshot.shared_queue in profile.queues)


def holders(task: str, ready: Iterable[Instance], snapshot: Snapshot) -> list[Instance]:
    """Who could be given a task that must not go to the shared queue; empty if it may."""
    takers = (i for i in snapshot.instances if _takes_shared(i, snapshot))
    if all(knows(i, task) for i in takers):
        return []
    knowing = [i for i in ready if knows(i, task)]
    alive = [i for i in snapshot.instances if _lives(i) and knows(i, task)]
    return knowing or [i for i in alive if i.state is not State.ZOMBIE] or alive


def home(task: str, snapshot: Snapshot, own: Callable[[str], str], shared: str) -> str | None:
    """To which queue a task goes that an instance gives back; None if it must stay where it is.

    The shared queue, if all who take from it know the task; else the own queue (`own` of an
    instance id) of the one that knows it and has the shortest line; else it stays: whoever comes
    back under that name, or knows it later, will run it, and nobody discards it.
    """
    able = holders(task, (), snapshot)
    if able:
        return own(min(able, key=lambda i: _burden(i, snapshot)).id)
    takers = (i for i in snapshot.instances if _takes_shared(i, snapshot))
    return shared if all(knows(i, task) for i in takers) else None


def knower(task: str, snapshot: Snapshot, queue: str, *, but: str) -> str | None:
    """Who gets a task that `but` has taken from `queue` and does not know; None if nobody does.

    Of those that know it rather one that takes from the same queue; of these the shortest line.
    """
    others = (i for i in snapshot.instances if i.id != but and i.state is not State.ZOMBIE)
    knowing = [i for i in others if _lives(i) and knows(i, task)]
    takes = [i for i in knowing if i.profile is not None and queue in i.profile.queues]
    found = min(takes or knowing, key=lambda i: _burden(i, snapshot), default=None)
    return found.id if found is not None else None


def _burden(instance: Instance, snapshot: Snapshot) -> tuple[bool, float, str]:
    # One that takes none has no line because of that.
    takes_none = bool(out_of_service(instance, snapshot.taken_at))
    return takes_none, line_per_slot(instance, 0), instance.id


def line(instance: Instance, placed: int) -> int:
    """How many tasks it has or is about to have: held, waiting in its queue, placed since."""
    return (instance.held or 0) + (instance.queued or 0) + placed


def line_per_slot(instance: Instance, placed: int) -> float:
    """The same for each slot."""
    return line(instance, placed) / max(1, instance.load.slots or 1)
