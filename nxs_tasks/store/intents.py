"""What people want of the fleet (`model/intent.py`), and what was taken out of its way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from nxs_tasks.model.intent import Cancelled, InForce, Kind, Pause
from nxs_tasks.model.shelf import CANCELLED, PAUSED, Shelved
from nxs_tasks.store.connect import explained
from nxs_tasks.store.message import read, reroute
from nxs_tasks.store.rows import MALFORMED
from nxs_tasks.store.shelves import Shelves, entry_text
from nxs_tasks.store.store import FleetStore

#: Messages or ids in one call of a script.
BATCH = 200
#: What `reinstate` answers for an entry that is not there any more.
NOT_THERE = "-"
REASON = "cancelled"
KINDS: tuple[Kind, ...] = ("queue", "task")


@dataclass(frozen=True, slots=True)
class Unwanted:
    """One message of a cancelled task, where it was found."""

    what: str  # its text in a list, or the id of its entry on a shelf
    place: int  # how many messages of the list are taken before it; 0 on a shelf
    entry: Shelved  # what it becomes; its message is the one that is there
    unique_key: str = ""
    ignores_result: bool = False

    def arguments(self, lock: Callable[[str], str]) -> tuple[str, str, str, str, str]:
        """As the script takes them."""
        entry = self.entry
        about = entry_text(replace(entry, reason=REASON, message=""))
        told = "" if self.ignores_result else entry.task
        return self.what, about, entry.task_id, told, lock(self.unique_key)


class Intents:
    """The intents of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    # cancelled tasks

    def cancel(self, ids: Iterable[str], by: str, keep_s: float) -> list[str]:
        """Have tasks not run, wherever they turn up; returns those that were cancelled before."""
        keys, wanted = self._store.keys, list(ids)
        before: list[str] = []
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            new = self._store.call(
                "cancel", [keys.cancelled(), keys.cancellations()], [keep_s, by, *batch]
            )
            before += [id_ for id_, is_new in zip(batch, new, strict=True) if not is_new]
        return before

    def cancelled(self, task_id: str) -> Cancelled | None:
        """Whether, when and by whom a task was cancelled."""
        keys = self._store.keys
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=True)
            pipe.zscore(keys.cancelled(), task_id)
            pipe.hget(keys.cancellations(), task_id)
            until, note = pipe.execute()
        if until is None:
            return None
        about = _json(note)
        return Cancelled(
            task_id=task_id,
            at=_number(about.get("at")),
            by=str(about.get("by", "")),
            until=float(until),
        )

    def in_force(self) -> InForce:
        """All that holds now."""
        with explained(self._store.url):
            cancelled = int(self._store.client.zcard(self._store.keys.cancelled()))
        return InForce(pauses=self.pauses(), cancelled=cancelled)

    def withdraw(self, source: str, messages: list[Unwanted], *, shelf: bool = False) -> list[bool]:
        """Take messages out of a list, or off a shelf, and keep them; whether each was there.

        They are marked by `cancel` before: what a worker takes meanwhile is not run either.
        """
        keys = self._store.keys
        into = [keys.shelf(CANCELLED), keys.shelf_index(CANCELLED), keys.untold()]
        source_keys = [keys.shelf(source), keys.shelf_index(source)] if shelf else [source]
        there: list[bool] = []
        for start in range(0, len(messages), BATCH):
            batch = messages[start : start + BATCH]
            # What was removed before made all that follows come nearer.
            first = batch[0].place - sum(there)
            span = batch[-1].place - batch[0].place + 1
            flat = [argument for m in batch for argument in m.arguments(self._lock)]
            answer = self._store.call("withdraw", [*into, *source_keys], [first, span, *flat])
            there += [bool(was) for was in answer]
        return there

    def reinstate(self, entry: Shelved, home: Callable[[str], str]) -> str | None:
        """Put a kept message back to be taken next, and do not want it cancelled any more.

        One from an instance's own queue goes to the queue `home(task)`. Returns "" if it is back,
        None if it is gone, or the id of the task that has its `unique_key` now: then it stays.
        Raises `MessageError` if it is no message.
        """
        keys, message, target = self._store.keys, entry.message, entry.list
        known = read(message)
        if not target:
            queue = home(entry.task)
            message, target = (
                reroute(message, queue),
                self._store.wire.list_of(queue, known.priority),
            )
        names = [keys.shelf(CANCELLED), keys.shelf_index(CANCELLED), keys.untold()]
        names += [keys.cancelled(), keys.cancellations(), target]
        if known.unique_key:
            names.append(keys.unique(known.unique_key))
        answer = str(self._store.call("reinstate", names, [entry.id, entry.task_id, message]))
        return None if answer == NOT_THERE else answer

    def uncancel(self, task_id: str) -> bool:
        """Let a task run if it comes; False if it was not cancelled."""
        keys = self._store.keys
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=True)
            pipe.zrem(keys.cancelled(), task_id)
            pipe.hdel(keys.cancellations(), task_id)
            return bool(pipe.execute()[0])

    def due(self) -> list[str]:
        """Cancelled ids that may be forgotten."""
        now = self._store.now()
        with explained(self._store.url):
            found = self._store.client.zrangebyscore(self._store.keys.cancelled(), "-inf", now)
        return cast("list[str]", found)

    def forget(self, ids: list[str]) -> int:
        """Forget cancelled ids that are due, with the messages kept of them; returns how many."""
        keys = self._store.keys
        names = [keys.cancelled(), keys.cancellations(), keys.shelf(CANCELLED)]
        names += [keys.shelf_index(CANCELLED), keys.untold()]
        batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
        return sum(int(self._store.call("forget_cancelled", names, batch)) for batch in batches)

    # results that do not say REVOKED yet

    def untold(self) -> Mapping[str, str]:
        """Ids of withdrawn tasks whose result does not say so yet, with the names."""
        with explained(self._store.url):
            return cast("dict[str, str]", self._store.client.hgetall(self._store.keys.untold()))

    def told(self, ids: Iterable[str]) -> None:
        """Note that results say REVOKED."""
        if known := list(ids):
            with explained(self._store.url):
                self._store.client.hdel(self._store.keys.untold(), *known)

    def _lock(self, unique_key: str) -> str:
        return self._store.keys.unique(unique_key) if unique_key else ""

    # pauses

    def pause(self, kind: Kind, name: str, by: str, reason: str = "") -> bool:
        """Pause a queue or a task; False if it was before (a new reason replaces the old one)."""
        keys = [self._paused(kind), self._store.keys.pauses()]
        return bool(self._store.call("pause", keys, [name, f"{kind}:{name}", by, reason]))

    def resume(self, kind: Kind, name: str) -> bool:
        """End a pause; False if there was none. What was put aside: `take_back`."""
        keys = [self._paused(kind), self._store.keys.pauses()]
        return bool(self._store.call("resume", keys, [name, f"{kind}:{name}"]))

    def pauses(self) -> tuple[Pause, ...]:
        """What is paused: queues before tasks, by name."""
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=True)
            for kind in KINDS:
                pipe.smembers(self._paused(kind))
            pipe.hgetall(self._store.keys.pauses())
            *names, notes = pipe.execute()
        return tuple(
            _pause(kind, name, _json(notes.get(f"{kind}:{name}")))
            for kind, found in zip(KINDS, names, strict=True)
            for name in sorted(found)
        )

    def is_paused(self, kind: Kind, name: str) -> bool:
        """Whether it is."""
        with explained(self._store.url):
            return bool(self._store.client.sismember(self._paused(kind), name))

    def is_cancelled(self, task_id: str) -> bool:
        """Whether a task is not to run."""
        with explained(self._store.url):
            key = self._store.keys.cancelled()
            return self._store.client.zscore(key, task_id) is not None

    def take_back(self, task: str) -> int:
        """Put the tasks of a name that wait on the shelf to the front of their queues, in order.

        Until none is left: while others take from the shelf too, one look may miss some.
        """
        shelves, back = Shelves(self._store), 0
        while True:
            waiting = [entry for entry in shelves.entries(PAUSED) if entry.task == task]
            if not waiting or self.is_paused("task", task):
                return back
            back += shelves.take(PAUSED, waiting, "front")

    def _paused(self, kind: Kind) -> str:
        keys = self._store.keys
        return keys.paused_queues() if kind == "queue" else keys.paused_tasks()


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except MALFORMED:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _pause(kind: Kind, name: str, about: dict[str, Any]) -> Pause:
    return Pause(
        kind=kind,
        name=name,
        since=_number(about.get("since")),
        by=str(about.get("by", "")),
        reason=str(about.get("reason", "")),
    )
