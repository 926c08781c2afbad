"""Find one task wherever it can be, and say why it does not run. Looks, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery.utils.time import maybe_iso8601, maybe_make_aware

from nxs_tasks.control.ids import id_of
from nxs_tasks.control.results import Results
from nxs_tasks.model.intent import Cancelled
from nxs_tasks.model.shelf import CANCELLED, DELAYED, PARKED, PAUSED, QUARANTINE, Shelved
from nxs_tasks.model.why import Place, Whereabouts, Why
from nxs_tasks.policy.fleet.why import why as decide
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.message import Envelope, as_text
from nxs_tasks.store.places import Places
from nxs_tasks.store.quarantine import envelope_of
from nxs_tasks.store.queues import Queues, Waiting
from nxs_tasks.store.shelves import Shelves

#: Shelves in the order in which they are looked at.
ASIDE: tuple[tuple[str, Place], ...] = (
    (DELAYED, "delayed"),
    (PARKED, "parked"),
    (PAUSED, "paused"),
    (QUARANTINE, "quarantine"),
)


def why(runtime: Runtime, task_id: Any) -> Why:
    """Why a task does not run now, or what else is with it: an id, or a result.

    Reads every queue until it is found, O(depth). Raises `IntentRefused` for an empty id, and
    `BrokerError`.
    """
    search = Search(runtime, id_of(task_id))
    # Once more: what moves from one place to another at that moment is missed in both.
    where = search.look() or search.look() or search.nowhere()
    snapshot = runtime.store().snapshot()
    return decide(where, snapshot, runtime.settings, snapshot.taken_at)


class Search:
    """Looks for one task."""

    def __init__(self, runtime: Runtime, task_id: str) -> None:
        self._runtime = runtime
        self._store = runtime.store()
        self._queues = Queues(self._store)
        self._shelves = Shelves(self._store)
        self._intents = Intents(self._store)
        self._id = task_id

    def look(self) -> Whereabouts | None:
        """Where it is: what is held counts before what waits, because a retry has the same id."""
        names = self._names()
        found = (self._queues.find_waiting(name, self._id) for name in names)
        waiting = next((w for w in found if w is not None), None)
        for held in self._queues.all_held():
            if held.envelope.task_id == self._id:
                holder = {"holder": held.instance, "epoch": held.epoch, "token": held.token}
                return self._about("held", held.envelope, at=held.since, **holder)
        if waiting is not None:
            return self._in_queue(waiting, names)
        for shelf, place in ASIDE:
            for entry in self._shelves.find(shelf, self._id):
                return self._on_shelf(place, entry)
        cancelled = self._intents.cancelled(self._id)
        return None if cancelled is None else self._cancelled(cancelled)

    def nowhere(self) -> Whereabouts:
        """What is left to say: its result."""
        result = Results(self._runtime.app).state(self._id)
        return Whereabouts(task_id=self._id, place="nowhere", result=result)

    def _names(self) -> list[str]:
        snapshot = self._store.snapshot()
        return Places(self._store).queues(snapshot, also=self._runtime.app.amqp.queues)

    def _in_queue(self, waiting: Waiting, names: Iterable[str]) -> Whereabouts:
        steps = self._more_urgent(waiting.priority)
        own_of = self._owner(waiting.queue)
        depths = self._queues.depths(waiting.queue)
        ahead = waiting.ahead + sum(depths[step] for step in steps)
        beside = {}
        for name in names:
            if name == waiting.queue or self._owner(name):
                continue
            others = self._queues.depths(name)
            # Of the same priority in turn; an own queue comes before all of them.
            in_turn = 0 if own_of else min(others[waiting.priority], ahead + 1)
            beside[name] = sum(others[step] for step in steps) + in_turn
        return self._about(
            "queue",
            waiting.envelope,
            queue=waiting.queue,
            own_of=own_of,
            priority=waiting.priority,
            ahead=ahead,
            at=self._due(waiting.envelope.eta),
            beside={name: count for name, count in beside.items() if count},
        )

    def _on_shelf(self, place: Place, entry: Shelved) -> Whereabouts:
        queue = self._queue_of(entry.list)
        return self._about(
            place,
            envelope_of(entry),
            task=entry.task,
            queue=queue,
            own_of=self._owner(queue),
            at=entry.at,
            reason=entry.reason,
        )

    def _cancelled(self, cancelled: Cancelled) -> Whereabouts:
        kept = self._shelves.find(CANCELLED, self._id)
        task = kept[0].task if kept else ""
        return Whereabouts(task_id=self._id, place="cancelled", task=task, cancelled=cancelled)

    def _about(self, place: Place, envelope: Envelope | None, **known: Any) -> Whereabouts:
        placed: Mapping[str, Any] = (envelope.placed if envelope else None) or {}
        if envelope is not None and envelope.task:
            known["task"] = envelope.task
        return Whereabouts(
            task_id=self._id,
            place=place,
            placed=bool(placed),
            placed_why=as_text(placed.get("why")),
            key=as_text(placed.get("key")),
            pauses=self._intents.pauses(),
            cancelled=self._intents.cancelled(self._id),
            **known,
        )

    def _more_urgent(self, priority: int) -> list[int]:
        steps = self._store.wire.steps
        return list(steps[: steps.index(priority)])

    def _due(self, eta: str) -> float | None:
        """The time of an ETA, s; None for none, and for what is no time: that runs at once."""
        try:
            due = maybe_make_aware(maybe_iso8601(eta), self._runtime.app.timezone) if eta else None
            return None if due is None else float(due.timestamp())
        except (ValueError, OverflowError):
            return None

    def _queue_of(self, key: str) -> str:
        wire = self._store.wire
        name = key.removeprefix(wire.prefix).partition(wire.sep)[0]
        return name or self._store.shared_queue

    def _owner(self, queue: str) -> str:
        own = self._store.keys.own_queue("")
        return queue.removeprefix(own) if queue.startswith(own) else ""
