"""Cancel tasks for good, whether anybody is up or not, and take a cancellation back.

A cancelled task's id is remembered in the broker first. Then its message is taken out of Redis and
kept aside, and its result says REVOKED. The message goes at once because a promise that it does not
run must hold for every consumer, also for a plain Celery worker that knows nothing of the ids, and
because what is behind it should not wait for it. The id stays for what slips through: a message
that a worker holds, that a dead one held, or that has yet to come.

Two kinds are left to the worker that meets them, which has Celery itself announce them as revoked:
what a process holds already, and parts of a chord, because only Celery can tell a chord of it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nxs_tasks.control.results import Results
from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused, ResultsUnreachable
from nxs_tasks.model.intent import Cancellation, Running, Selection, Undone
from nxs_tasks.model.shelf import CANCELLED, QUARANTINE, Shelved
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.homes import homes
from nxs_tasks.store.intents import Intents, Unwanted
from nxs_tasks.store.message import Envelope, in_chord
from nxs_tasks.store.places import WAITING_SHELVES, Places, Walk, envelope
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.shelves import Shelves

log = logging.getLogger(__name__)

DAY_S = 86_400.0
#: Entries that are taken off a shelf at a time, and results told at a time.
BATCH = 500


def selection(ids: Iterable[Any], task: str = "", group: str = "") -> Selection:
    """What is meant; results may stand for their ids. Raises `IntentRefused` for an empty id."""
    named = frozenset(str(getattr(id_, "id", id_)) for id_ in ids)
    if "" in named:
        raise IntentRefused("an id is empty")
    groups = {str(getattr(group, "id", group))} if group else set()
    return Selection(ids=named, tasks=frozenset({task} - {""}), groups=frozenset(groups))


def cancel(
    runtime: Runtime, wanted: Selection, *, terminate: bool = False, dry_run: bool = False
) -> Cancellation:
    """Cancel every task that is meant and is in Redis now, and the ids for as long as remembered.

    With `terminate` what runs is ended by Celery's own revoke. `dry_run` changes nothing. Raises
    `BrokerError`; what was cancelled until then is, and the same call again does the rest.
    """
    if not wanted:
        raise IntentRefused("say what to cancel: ids, the name of a task, or the id of a group")
    hunt = Hunt(runtime, wanted, dry_run=dry_run)
    before = hunt.mark(sorted(wanted.ids))
    hunt.run()
    terminated = terminate and not dry_run and bool(hunt.running)
    if terminated:
        runtime.app.control.revoke(sorted(hunt.running), terminate=True)
    missed = hunt.missed - hunt.seen - set(hunt.running)
    nowhere = wanted.ids - hunt.seen - set(hunt.running) - missed - set(before)
    results = Results(runtime.app)
    return Cancellation(
        dry_run=dry_run,
        withdrawn=dict(+hunt.withdrawn),
        left=dict(+hunt.left),
        running=tuple(hunt.running.values()),
        missed=tuple(sorted(missed)),
        nowhere={id_: results.state(id_) for id_ in sorted(nowhere)},
        before=tuple(before),
        terminated=terminated,
        untold="" if dry_run else tell(runtime),
    )


def tell(runtime: Runtime) -> str:
    """Have the results of all withdrawn tasks say REVOKED; returns why some do not, or ""."""
    intents, results = Intents(runtime.store()), Results(runtime.app)
    told: list[str] = []
    for task_id, task in intents.untold().items():
        try:
            results.revoke(task_id, task)
        except ResultsUnreachable as error:
            log.warning("some results do not say REVOKED yet: %s", error)
            return str(error)
        told.append(task_id)
        if len(told) == BATCH:
            intents.told(told)
            told = []
    intents.told(told)
    return ""


def undo(runtime: Runtime, wanted: Selection) -> Undone:
    """Take cancellations back: messages that were kept return to the front of their queues.

    Raises `BrokerError`, or `ResultsUnreachable`: what was undone until then is.
    """
    if not wanted:
        raise IntentRefused("say what to take back: ids, the name of a task, or the id of a group")
    store = runtime.store()
    intents, results, where = Intents(store), Results(runtime.app), homes(store)
    back: list[str] = []
    refused: dict[str, str] = {}
    # The newest first, so that the oldest comes to be taken next.
    for entry in reversed(_kept(Shelves(store), wanted)):
        results.forget_revoked(entry.task_id)
        owner = intents.reinstate(entry, lambda task: where(task, ""))
        if owner:
            refused[entry.task_id] = owner
            results.revoke(entry.task_id, entry.task)
        elif owner is not None:
            back.append(entry.task_id)
    rest = sorted(wanted.ids - set(back) - set(refused))
    unmarked = [id_ for id_ in rest if intents.uncancel(id_)]
    return Undone(
        back=tuple(reversed(back)),
        refused=refused,
        unmarked=tuple(unmarked),
        unknown=tuple(id_ for id_ in rest if id_ not in unmarked),
    )


def _kept(shelves: Shelves, wanted: Selection) -> list[Shelved]:
    return [e for e in shelves.entries(CANCELLED) if _is_wanted(wanted, envelope(e.message))]


def forget(runtime: Runtime) -> int:
    """Forget cancelled ids whose time is over, but none that still is in Redis; returns how many.

    Also tells the results that could not be told before.
    """
    tell(runtime)
    intents = Intents(runtime.store())
    due = intents.due()
    if not due:
        return 0
    # Whatever is still found is marked anew, and so not forgotten.
    Hunt(runtime, Selection(ids=frozenset(due))).run()
    return intents.forget(due)


class Hunt:
    """One search through all places for tasks that are not wanted, and what it did."""

    def __init__(self, runtime: Runtime, wanted: Selection, *, dry_run: bool = False) -> None:
        self._runtime = runtime
        self._store = runtime.store()
        self._intents = Intents(self._store)
        self._wanted = wanted
        self._dry_run = dry_run
        #: Ids that were found waiting.
        self.seen: set[str] = set()
        #: Ids that were found waiting, and taken by somebody else in this moment.
        self.missed: set[str] = set()
        self.withdrawn: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.running: dict[str, Running] = {}

    def run(self) -> None:
        """Look through all places in the order in which messages move; twice where they may not."""
        self._look_at_held()
        self._look_at_shelves()
        self._look_at_quarantine()
        known = self._runtime.app.amqp.queues
        for queue in Places(self._store).queues(self._store.snapshot(), also=known):
            for key in self._store.wire.queue_keys(queue):
                self._look_at_list(queue, key)
        if not self._dry_run:
            self._look_at_shelves()
            self._look_at_held()

    def mark(self, ids: Iterable[str]) -> list[str]:
        """Remember ids as cancelled; returns those that were before."""
        if self._dry_run:
            return []
        keep_s = self._runtime.settings.cancel_days * DAY_S
        return self._intents.cancel(ids, whoami(), keep_s)

    def _look_at_held(self) -> None:
        held = [h for h in Queues(self._store).all_held() if _is_wanted(self._wanted, h.envelope)]
        self.mark(h.envelope.task_id for h in held)
        tasks = [
            Running(task_id=h.envelope.task_id, task=h.envelope.task, instance=h.instance)
            for h in held
        ]
        self.running = {task.task_id: task for task in tasks}

    def _look_at_list(self, queue: str, key: str) -> None:
        walk = Walk(self._store, key)
        # An own queue is no place to come back to: its instance may be gone by then.
        target = "" if queue.startswith(self._store.keys.own_queue("")) else key
        while page := walk.page():
            found = [
                _in_list(raw, walk.passed + n, target, known)
                for n, raw in enumerate(page)
                if (known := envelope(raw)) and _is_wanted(self._wanted, known)
            ]
            gone = self._act(f"queue {queue}", found, source=key)
            walk.leave([raw for raw in page if raw not in gone])

    def _look_at_shelves(self) -> None:
        for shelf in WAITING_SHELVES:
            found: list[Unwanted] = []
            for entry in Shelves(self._store).scan(shelf):
                known = envelope(entry.message)
                if known and _is_wanted(self._wanted, known):
                    found.append(_on_shelf(entry, known))
                if len(found) == BATCH:
                    self._act(f"shelf {shelf}", found, source=shelf, shelf=True)
                    found = []
            self._act(f"shelf {shelf}", found, source=shelf, shelf=True)

    def _look_at_quarantine(self) -> None:
        """Somebody will decide about these; whatever that is, they do not run."""
        known = (envelope(e.message) for e in Shelves(self._store).scan(QUARANTINE))
        ids = {k.task_id for k in known if k and _is_wanted(self._wanted, k)}
        self.mark(sorted(ids))
        self.left[f"shelf {QUARANTINE}"] += len(ids)
        self.seen |= ids

    def _act(
        self, place: str, found: list[Unwanted], *, source: str, shelf: bool = False
    ) -> set[str]:
        """Cancel what was found in one place; returns what is not there any more."""
        # Marked first, so that who takes it in this moment does not run it.
        self.mark(u.entry.task_id for u in found)
        chord: list[Unwanted] = []
        plain: list[Unwanted] = []
        for unwanted in found:
            (chord if in_chord(unwanted.entry.message) else plain).append(unwanted)
        # Met twice, it counts once.
        self.left[place] += len({u.entry.task_id for u in chord} - self.seen)
        self.seen.update(u.entry.task_id for u in chord)
        if self._dry_run:
            there = [True] * len(plain)
        else:
            there = self._intents.withdraw(source, plain, shelf=shelf)
        self.withdrawn[place] += sum(there)
        for unwanted, was_there in zip(plain, there, strict=True):
            (self.seen if was_there else self.missed).add(unwanted.entry.task_id)
        return set() if self._dry_run else {u.what for u in plain}


def _is_wanted(wanted: Selection, known: Envelope | None) -> bool:
    return known is not None and wanted.matches(known.task_id, known.task, known.group)


def _in_list(raw: str, place: int, target: str, known: Envelope) -> Unwanted:
    entry = Shelved(
        id="",
        at=0.0,
        list=target,
        message=raw,
        reason="",
        task_id=known.task_id,
        task=known.task,
    )
    return Unwanted(raw, place, entry, known.unique_key, known.ignores_result)


def _on_shelf(entry: Shelved, known: Envelope) -> Unwanted:
    # The entry may have been written by hand, without saying whose it is.
    entry = replace(entry, task_id=known.task_id, task=known.task)
    return Unwanted(entry.id, 0, entry, known.unique_key, known.ignores_result)
