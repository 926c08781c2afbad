"""`nxs story`: what happened to a task or an instance, and why.

A task: where it is now (waiting, held, neither), where it was placed and on what grounds, what its
result says. An instance: its record, its transitions with their evidence, what it holds, and the
last verdict on it, "nothing" included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from celery.states import READY_STATES

from nxs_tasks.cli.output import UNKNOWN, AsJson, age, console, number, print_json
from nxs_tasks.clock import iso
from nxs_tasks.errors import NxsError
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.record import LossRecord
from nxs_tasks.model.shelf import CANCELLED, DELAYED, SHELVES, Shelved
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED
from nxs_tasks.runtime import Runtime
from nxs_tasks.store import FleetStore
from nxs_tasks.store.checkpoints import Checkpoints
from nxs_tasks.store.events import Events
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.message import Envelope, moment, placed_at
from nxs_tasks.store.places import Places
from nxs_tasks.store.quarantine import envelope_of
from nxs_tasks.store.queues import Held, Queues, Waiting
from nxs_tasks.store.shelves import Shelves

#: Results that say something: PENDING is what a backend answers for an id it never saw.
KNOWN_STATES = READY_STATES | {"STARTED", "RETRY"}
NameOrId = Annotated[
    str, typer.Argument(metavar="ID", help="A task id, or an instance (NAME@HOST).")
]


def story(context: typer.Context, name: NameOrId, as_json: AsJson = False) -> None:
    """Tell what happened to a task or an instance, and why."""
    runtime: Runtime = context.obj.runtime()
    snapshot = runtime.store().snapshot(full=True)
    instance = snapshot.get(name)
    told = (
        _of_instance(runtime, instance, snapshot)
        if instance is not None
        else _of_task(runtime, name, snapshot)
    )
    if as_json:
        print_json(told)
        return
    for line in _lines_of_instance(told) if instance is not None else _lines_of_task(told):
        console().print(line, markup=False, soft_wrap=True)
    if not told["found"]:
        raise typer.Exit(1)


def _of_instance(runtime: Runtime, instance: Instance, snapshot: Snapshot) -> dict[str, Any]:
    pending = Events(runtime.store()).pending_transitions(instance.id)
    past, problem = _history(runtime, "transitions", instance=instance.id)
    known = {t.event_id for t in past}
    # Newest first as it comes; those of one instant keep their order.
    transitions = [*reversed(past), *(t for t in pending if t.event_id not in known)]
    held = [h for h in Queues(runtime.store()).all_held() if h.instance == instance.id]
    return {
        "found": True,
        "instance": instance.id,
        "state": instance.state,
        "epoch": instance.epoch,
        "process": instance.identity,
        "verdict": instance.verdict,
        "heartbeat_s": None if instance.beat_at is None else snapshot.taken_at - instance.beat_at,
        "connections": instance.connections,
        "queued": instance.queued,
        "load": asdict(instance.load),
        "outcomes": {"succeeded": instance.succeeded, "failed": instance.failed},
        "transitions": [asdict(t) for t in transitions],
        "held": [_held(h, snapshot) for h in held],
        "history_problem": problem,
    }


def _of_task(runtime: Runtime, task_id: str, snapshot: Snapshot) -> dict[str, Any]:
    store = runtime.store()
    queues = Queues(store)
    places = Places(store).queues(snapshot, also=runtime.app.amqp.queues)
    waiting = _first(queues.find_waiting(q, task_id) for q in places)
    held = [h for h in queues.all_held() if h.envelope.task_id == task_id]
    shelved = [(s, e) for s in SHELVES for e in Shelves(store).find(s, task_id)]
    placements, problem = _history(runtime, "placements", task_id=task_id)
    losses, _ = _history(runtime, "losses", task_id=task_id)
    result = runtime.app.AsyncResult(task_id)
    state = _result_state(result)
    envelope = waiting.envelope if waiting else held[0].envelope if held else None
    if envelope is None and shelved:
        envelope = envelope_of(shelved[0][1])
    cancelled = Intents(store).cancelled(task_id)
    kept = Shelves(store).find(CANCELLED, task_id) if cancelled else []
    return {
        "found": bool(
            waiting or held or shelved or cancelled or placements or losses or state in KNOWN_STATES
        ),
        "task_id": task_id,
        "task": _task_name(envelope, [*(e for _, e in shelved), *kept], [*placements, *losses]),
        "placed": envelope.placed if envelope else None,
        "moved": envelope.moved if envelope else None,
        "waiting": _waiting(waiting) if waiting else None,
        "held": [_held(h, snapshot) for h in held],
        "shelved": [
            {"shelf": name, "at": e.at, "reason": e.reason, "task": e.task} for name, e in shelved
        ],
        "cancelled": asdict(cancelled) if cancelled else None,
        "checkpoint": _checkpoint(store, task_id),
        "lost": _all_losses(envelope, losses),
        "result_state": state,
        "placements": [asdict(p) for p in placements],
        "history_problem": problem,
    }


def _task_name(envelope: Envelope | None, kept: list[Shelved], records: list[Any]) -> str | None:
    if envelope is not None:
        return envelope.task
    if kept:
        return kept[0].task
    return records[0].task if records else None


def _all_losses(envelope: Envelope | None, losses: list[LossRecord]) -> list[dict[str, Any]]:
    """Those of the history, and those of the message that are not there yet; oldest first."""
    known = {(loss.instance, loss.epoch) for loss in losses}
    told = [
        {"instance": loss.instance, "epoch": loss.epoch, "at": loss.at, "became": loss.became}
        for loss in reversed(losses)
    ]
    newer = [dict(loss) for loss in envelope.lost] if envelope else []
    return told + [loss for loss in newer if (loss.get("instance"), loss.get("epoch")) not in known]


def _checkpoint(store: FleetStore, task_id: str) -> dict[str, Any] | None:
    saved = Checkpoints(store).saved(task_id)
    return asdict(saved) if saved else None


def _checkpoint_lines(saved: dict[str, Any]) -> list[str]:
    at, move = saved["at"], saved["move"]
    lines = [f"  {moment(at)} saved {saved['size']} bytes"] if at is not None else []
    if move is not None:
        where = f"with {move['to']}" if move["to"] else f"elsewhere than with {move['of']}"
        when, by = moment(move["at"]), move["by"] or UNKNOWN
        lines.append(f"  {when} asked by {by} to go on {where} from its next checkpoint")
    return lines


def _first(found: Iterable[Waiting | None]) -> Waiting | None:
    return next((one for one in found if one is not None), None)


def _result_state(result: Any) -> str | None:
    """The state only: a result may hold what is nobody's business. None if there is no backend."""
    try:
        return str(result.state)
    except (AttributeError, NotImplementedError, OSError):
        return None
    except getattr(result.backend, "connection_errors", ()):
        return "the result backend does not answer"


def _history(runtime: Runtime, what: str, **filters: str) -> tuple[list[Any], str]:
    """Rows and the problem, if the history cannot be read: a story goes on without it."""
    try:
        return list(getattr(runtime.history(), what)(**filters)), ""
    except NxsError as error:
        return [], str(error)


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return {"queue": waiting.queue, "priority": waiting.priority, "ahead": waiting.ahead}


def _held(held: Held, snapshot: Snapshot) -> dict[str, Any]:
    holder = snapshot.get(held.instance)
    return {
        "holder_lives": bool(holder and holder.epoch == held.epoch and holder.state not in ENDED),
        "instance": held.instance,
        "epoch": held.epoch,
        "task_id": held.envelope.task_id,
        "task": held.envelope.task,
        "held_s": held.for_s(snapshot.taken_at),
    }


def _lines_of_instance(told: dict[str, Any]) -> list[str]:
    outcomes = told["outcomes"]
    lines = [
        f"{told['instance']} is {told['state']} (epoch {told['epoch']}, process {told['process']})",
        f"  last heartbeat {age(told['heartbeat_s'])} ago, "
        f"{_count(told['connections'])} connection(s), {_count(told['queued'])} waiting, "
        f"{outcomes['succeeded']} succeeded and {outcomes['failed']} failed in the window",
        f"  verdict: {told['verdict'] or 'none yet'}",
        "transitions:",
    ]
    for t in told["transitions"]:
        evidence = ", ".join(f"{k}={v}" for k, v in t["evidence"].items())
        # What was done about one that stays in its state.
        path = (
            t["target"] if t["source"] == t["target"] else f"{t['source'] or '·'} → {t['target']}"
        )
        lines.append(f"  {iso(t['at'])} {path}  {t['reason']}")
        lines.append(f"      epoch {t['epoch']}" + (f", {evidence}" if evidence else ""))
    lines.append("holds:" if told["held"] else "holds nothing")
    lines += [_held_line(h) for h in told["held"]]
    return lines + _problem(told)


def _lines_of_task(told: dict[str, Any]) -> list[str]:
    lines = [f"task {told['task_id']} ({told['task'] or 'name unknown'})"]
    placed = told["placed"]
    if placed:
        where = placed.get("to") or "the shared queue"
        score = f" with score {number(placed.get('score'), 3)}" if placed.get("to") else ""
        at = placed_at(placed)
        when = UNKNOWN if at is None else iso(at)
        lines.append(f"  {when} placed on {where}{score}: {placed.get('why')}")
    for p in told["placements"]:
        lines += _placement_lines(p)
    lines += _whereabouts(told)
    if told["checkpoint"]:
        lines += _checkpoint_lines(told["checkpoint"])
    if told["cancelled"]:
        c = told["cancelled"]
        what = "runs already, will not run again" if told["held"] else "will not run"
        lines.append(f"  {moment(c['at'])} cancelled by {c['by'] or UNKNOWN}: {what}")
    if not told["waiting"] and not told["held"] and not told["shelved"]:
        lines.append("  neither waits nor is held")
    if told["result_state"]:
        lines.append(f"  result backend: {told['result_state']}")
    if not told["found"]:
        lines.append("  nothing is known of it: no message, no result, no recorded placement")
    elif not told["placements"]:
        lines.append("  (this placement is not in the history, or not yet; it keeps a sample)")
    return lines + _problem(told)


def _whereabouts(told: dict[str, Any]) -> list[str]:
    """Where the message was and is."""
    lines = []
    if told["moved"]:
        m = told["moved"]
        lines.append(f"  {moment(m.get('at'))} moved from {m.get('from')}, whose line was long")
    if told["waiting"]:
        w = told["waiting"]
        lines.append(
            f"  waits in {w['queue']} (priority {w['priority']}), {w['ahead']} ahead of it"
        )
    lines += [f"  held now:{_held_line(h)}" for h in told["held"]]
    lines += [_shelved_line(s) for s in told["shelved"]]
    lines += [
        f"  {moment(loss.get('at'))} {loss.get('instance')} died while it held it: "
        f"{loss.get('became') or 'given back'}"
        for loss in told["lost"]
    ]
    return lines


def _shelved_line(shelved: dict[str, Any]) -> str:
    if shelved["shelf"] == DELAYED:
        return f"  waits for its time, {moment(shelved['at'])}"
    return f"  {shelved['shelf']} since {moment(shelved['at'])}: {shelved['reason']}"


def _placement_lines(placement: dict[str, Any]) -> list[str]:
    where = placement["instance"] or "the shared queue"
    lines = [f"  {iso(placement['at'])} weighed: {where}, {placement['reason']}"]
    for c in placement["candidates"]:
        parts = " ".join(f"{k} {number(v)}" for k, v in c["terms"].items())
        lines.append(
            f"      {c['instance']}: {number(c['score'], 3)} ({parts}) {c['why_not'] or '← chosen'}"
        )
    return lines


def _held_line(held: dict[str, Any]) -> str:
    return (
        f"  {held['task'] or '?'} {held['task_id']} by {held['instance']} "
        f"(epoch {held['epoch']}) for {age(held['held_s'])}"
        + ("" if held["holder_lives"] else ": that process is gone, it will be rescued")
    )


def _count(value: int | None) -> str:
    return "an unknown number of" if value is None else str(value)


def _problem(told: dict[str, Any]) -> list[str]:
    return [f"! without the history: {told['history_problem']}"] if told["history_problem"] else []
