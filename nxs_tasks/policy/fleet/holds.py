"""What keeps a task from running wherever there is room: somebody's wish, its time, its state."""

from __future__ import annotations

from nxs_tasks.model.demand import Traits
from nxs_tasks.model.holder import Holder
from nxs_tasks.model.intent import Cancelled, Pause
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.why import Whereabouts, span
from nxs_tasks.policy.fleet.readiness import knower, traits_of
from nxs_tasks.policy.fleet.rescue import why_gone
from nxs_tasks.policy.fleet.takers import Case

#: In a few words, what keeps a task that is in such a place.
STAYS = {
    "held": "it is about to be rescued",
    "parked": "it is parked",
    "quarantine": "it is in quarantine",
}


def not_waiting(where: Whereabouts, snapshot: Snapshot, now: float) -> str:
    """What is said of a task that does not wait; "" if it does."""
    if where.place == "held":
        return "" if _lost(where, snapshot) else _held(where, snapshot, now)
    if where.place == "cancelled" and where.cancelled is not None:
        return f"{_cancelled(where.cancelled, now)}: it will not run"
    if where.place != "nowhere":
        return ""
    if where.result in ("STARTED", "RETRY"):
        return (
            f"its result says {where.result}, and there is no message of it: one with "
            "acks_late=False runs without"
        )
    if where.result:
        return f"has ended: its result says {where.result}"
    return (
        "nothing is known of it: no message, no result (a submission that the broker did not take "
        "is in the spool of its machine: `nxs spool show`)"
    )


def _lost(where: Whereabouts, snapshot: Snapshot) -> str:
    return why_gone(Holder(instance=where.holder, epoch=where.epoch, held=1), snapshot)


def _held(where: Whereabouts, snapshot: Snapshot, now: float) -> str:
    since = f" for {span(now - where.at)}" if where.at is not None else ""
    tail = ""
    if where.cancelled is not None:
        tail = f" ({_cancelled(where.cancelled, now)}: it is not run again)"
    holder = snapshot.get(where.holder)
    if holder is not None and where.token and holder.load.kept == where.token:
        asks = traits_of(where.task, snapshot.instances)
        return (
            f"waits in {where.holder}{since} until there is room for {_declared(asks)}: nothing "
            f"else starts there before, and it goes to any instance that has the room{tail}"
        )
    return f"is held by {where.holder}{since}: it runs there, or is about to{tail}"


def _declared(traits: Traits) -> str:
    memory = f"{traits.memory / 1e9:g} GB" if traits.memory else ""
    slots = f"{traits.slots} slots" if traits.slots > 1 else ""
    return " and ".join(part for part in (slots, memory) if part) or "it"


def _cancelled(cancelled: Cancelled, now: float) -> str:
    ago = f" {span(now - cancelled.at)} ago" if cancelled.at is not None else ""
    return f"was cancelled{ago}" + (f" by {cancelled.by}" if cancelled.by else "")


def on_hold(case: Case) -> str:
    """Why nobody may run it, whoever has room; "" if somebody may."""
    where, now = case.where, case.now
    if where.place == "held":
        gone = _lost(where, case.snapshot)
        return f"is held by a process of {where.holder} that is gone ({gone}): about to be rescued"
    if where.place == "quarantine":
        return f"is in quarantine until a person releases it: {where.reason or 'no reason is kept'}"
    if where.cancelled is not None:
        return f"{_cancelled(where.cancelled, now)}: the worker that meets it tells so"
    if where.place == "delayed":
        return _delayed(where, now)
    if where.place == "parked":
        return _parked(case)
    return _paused(case) or _early(where, now)


def due_in(where: Whereabouts, now: float) -> float | None:
    """When the time of a task comes, s from now; None if it has come, or there is none."""
    if where.place not in ("delayed", "queue") or where.at is None or where.at <= now:
        return None
    return where.at - now


def briefly(case: Case) -> str:
    """The same in a few words, for each instance."""
    where = case.where
    if where.place in STAYS:
        return STAYS[where.place]
    if where.cancelled is not None:
        return "it is cancelled"
    if where.place == "delayed" or _in_force(case) is None:
        return "it is about to go on" if due_in(where, case.now) is None else "it is not time yet"
    return "it is paused"


def _delayed(where: Whereabouts, now: float) -> str:
    left = due_in(where, now)
    if left is None:
        return f"its time has come: it is about to join the end of {where.queue}"
    return f"is delayed: its time comes in {span(left)}, then it joins the end of {where.queue}"


def _early(where: Whereabouts, now: float) -> str:
    left = due_in(where, now)
    if left is None:
        return ""
    return f"its time comes in {span(left)}: who takes it before puts it aside until then"


def _parked(case: Case) -> str:
    found = knower(case.where.task, case.snapshot, case.snapshot.shared_queue, but="")
    if found is not None:
        return f"was parked, and {found} can run it now: about to be sent there"
    return "is parked: no instance can run it"


def _paused(case: Case) -> str:
    where, pause = case.where, _in_force(case)
    if pause is not None:
        return _pause(pause, case.now)
    if where.place == "paused":
        return f"was put aside for a pause that has ended: `nxs resume --task {where.task}`"
    return ""


def _in_force(case: Case) -> Pause | None:
    """The pause that it waits for."""
    where = case.where
    for pause in where.pauses:
        queue = pause.kind == "queue" and pause.name == case.taken_by and where.place == "queue"
        if queue or (pause.kind == "task" and pause.name == where.task):
            return pause
    return None


def _pause(pause: Pause, now: float) -> str:
    since = f" for {span(now - pause.since)}" if pause.since is not None else ""
    by = f" by {pause.by}" if pause.by else ""
    reason = f": {pause.reason}" if pause.reason else ""
    return f"{pause.kind} {pause.name} is paused{since}{by}{reason}"
