"""How far running tasks are, kept by their ids, and who was asked to go on elsewhere.

The state belongs to the task's id and not to a delivery: whoever gets the message next goes on from
there. Only who holds the message reads or writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from nxs_tasks.errors import IntentRefused, MessageError, Stale
from nxs_tasks.model.checkpoint import Move, Saved
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.moving import elsewhere, why_not_to
from nxs_tasks.settings import Settings
from nxs_tasks.store.connect import explained
from nxs_tasks.store.guard import held_in
from nxs_tasks.store.homes import homes, lasting
from nxs_tasks.store.message import read, unwrap
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.token import Token, parse

DAY_MS = 86_400_000
#: What `save_checkpoint` answers when the task stops here.
STOPS = 2
#: What `ask_to_move` answers.
NOT_HELD, NOT_OPENED, NOT_ACTIVE = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Run:
    """A message that is held: its task runs, or is about to."""

    token: Token
    task: str
    queue: str  # the one it was sent to by name, or the shared one


class Checkpoints:
    """The checkpoints of one fleet. Every method raises `BrokerError`."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    # what a task does

    def open(self, task_id: str, task: str, token: Token, kept_ms: int) -> str:
        """What the task saved last, JSON; "" if nothing. Raises `Stale` if it is not held."""
        arguments = [token, token.instance, task, kept_ms]
        held, state = self._store.call(
            "open_checkpoint", self._names(task_id, token), map(str, arguments)
        )
        if not held:
            raise Stale(f"the message of {task_id} was taken from {token}")
        return str(state)

    def save(self, task_id: str, task: str, token: Token, state: str, kept_ms: int) -> str | None:
        """Save it; None, or if the task has to stop here its target ("" = any). Raises `Stale`."""
        arguments = [str(token), task, state, kept_ms, self._store.keys.instance("")]
        answer, to = self._store.call("save_checkpoint", self._names(task_id, token), arguments)
        if not answer:
            raise Stale(f"the message of {task_id} was taken from {token}")
        return str(to) if answer == STOPS else None

    # what others do

    def find_run(self, task_id: str) -> Run | None:
        """Who holds a task now, or None."""
        for holder in self._store.holders():
            key = held_in(self._store, Token(holder.instance, holder.epoch, 0))
            with explained(self._store.url):
                entries = cast("dict[str, str]", self._store.client.hgetall(key))
            for name, entry in entries.items():
                # The cheap test first: most messages are not the one.
                found = self._run(name, entry, task_id) if task_id in entry else None
                if found is not None:
                    return found
        return None

    def run_of(self, token: Token, task_id: str) -> Run | None:
        """The run of a task in one delivery, or None if its message is not held any more."""
        with explained(self._store.url):
            entry = self._store.client.hget(held_in(self._store, token), str(token))
        return None if entry is None else self._run(str(token), str(entry), task_id)

    def _run(self, name: str, entry: str, task_id: str) -> Run | None:
        token = parse(name)
        try:
            raw, queue = unwrap(entry)
            envelope = read(raw)
        except MessageError:
            return None
        if token is None or envelope.task_id != task_id:
            return None
        return Run(token, envelope.task, lasting(self._store, queue))

    def ask(self, task_id: str, run: Run, to: str, by: str) -> bool:
        """Ask it to go on elsewhere; False if the same was asked before. Raises `IntentRefused`."""
        names = self._names(task_id, run.token)
        if to:
            names.append(self._store.keys.instance(to))
        answer = self._store.call(
            "ask_to_move", names, [str(run.token), run.token.instance, to, by]
        )
        if answer < 0:
            raise IntentRefused(
                {
                    NOT_HELD: f"{task_id} is not running any more",
                    NOT_OPENED: f"{run.task}[{task_id}] runs without a checkpoint: it has not "
                    "called `fleet.checkpoint()`, so what it did until now would be lost",
                    NOT_ACTIVE: f"{task_id} cannot go to {to}: is not ACTIVE any more",
                }[int(answer)]
            )
        return bool(answer)

    def take_back(self, task_id: str) -> bool:
        """Do not want it moved any more; False if nobody did, or it has stopped for it already."""
        return bool(self._store.call("take_back", [self._store.keys.checkpoint(task_id)], ()))

    def saved(self, task_id: str) -> Saved | None:
        """What is known of a task's checkpoint, or None if it has none."""
        key = self._store.keys.checkpoint(task_id)
        names = ("task", "at", "move_to", "move_of", "move_by", "move_at")
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hmget(key, *names)
            pipe.hstrlen(key, "state")
            (task, at, to, of, by, asked), size = pipe.execute()
        if task is None:
            return None
        move = None if to is None else Move(to=to, of=of or "", by=by or "", at=_time(asked))
        return Saved(task=task, at=_time(at), size=int(size), move=move)

    def way(self, task_id: str, holder: str, settings: Settings) -> Callable[[str, str], str]:
        """`(task, queue it came from) → queue` for a task that has stopped to go on elsewhere.

        The own queue of the target, or without one of the best other instance. If it cannot go
        there any more, as everything that is given back.
        """
        snapshot = self._store.snapshot()
        with explained(self._store.url):
            to = self._store.client.hget(self._store.keys.checkpoint(task_id), "move_to")
        return _way(self._store, snapshot, holder, str(to or ""), settings)

    def _names(self, task_id: str, token: Token) -> list[str]:
        return [self._store.keys.checkpoint(task_id), held_in(self._store, token)]


def _way(
    store: FleetStore, snapshot: Snapshot, holder: str, to: str, settings: Settings
) -> Callable[[str, str], str]:
    fallback = homes(store, snapshot)

    def where(task: str, queue: str) -> str:
        sent_to = lasting(store, queue)
        if to and not why_not_to(to, task, holder, sent_to, snapshot, settings):
            return store.keys.own_queue(to)
        # A queue that was named stays the message's queue, unless a person has said where it goes.
        others = elsewhere(task, holder, sent_to, snapshot, settings)
        if others and sent_to == store.shared_queue:
            return store.keys.own_queue(others[0])
        return fallback(task, queue)

    return where


def _time(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
