"""Processes of a fleet as the store sees them: each takes messages under its name and its epoch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, cast

from nxs_tasks.model.shelf import Shelved
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.claim import NONE, Wishes, keys_and_arguments
from nxs_tasks.store.inflight import Inflight, Returned
from nxs_tasks.store.message import read, unwrap
from nxs_tasks.store.token import Token
from tests.conftest import add_instance
from tests.integration.messages import SHARED, message, put

#: What tells two processes of one name apart.
PIDS = itertools.count(1000)
#: When a process was found to be gone.
AT = 1700000000.25
#: First value of the answer of `claim.lua`.
TAKEN, NOTHING, DISPLACED = 1, 0, -1


class Process:
    """One process that has joined; `ask` is one question of its transport for work."""

    def __init__(self, store: FleetStore, instance: str = "w1", **joins: Any) -> None:
        self.store = store
        self.instance = instance
        self.identity = f"host/{next(PIDS)}"
        self.epoch = add_instance(store, instance, identity=self.identity, **joins)
        self.inflight = Inflight(store)
        self.last_token = ""
        #: What it would rather take, and where else.
        self.wishes: Wishes = NONE
        self._numbers = itertools.count(1)

    def ask(self, *queues: str) -> list[Any]:
        """The answer of the script; without `queues` it looks into its own and the shared one."""
        own = self.store.keys.own_queue(self.instance)
        self.last_token = str(Token(self.instance, self.epoch, next(self._numbers)))
        keys, arguments = keys_and_arguments(
            self.store,
            self.instance,
            self.epoch,
            self.last_token,
            queues or (own, self.store.shared_queue),
            self.wishes,
        )
        return cast("list[Any]", self.store.call("claim", keys, arguments))

    def take(self, *queues: str) -> str:
        """Take one message; its token."""
        answer = self.ask(*queues)
        assert answer[0] == TAKEN, answer
        return self.last_token

    def take_all(self, *queues: str) -> list[str]:
        """Take until nothing waits; the messages in their order."""
        taken = []
        while (answer := self.ask(*queues))[0] == TAKEN:
            taken.append(str(answer[2]))
        return taken

    def tokens(self) -> list[str]:
        return self.inflight.tokens(self.instance, self.epoch)

    def held(self) -> dict[str, tuple[str, str]]:
        """By the store's account: token to the message as it was, and its queue."""
        entries = cast("dict[str, str]", self.store.client.hgetall(self.hash))
        return {token: unwrap(entry) for token, entry in entries.items()}

    def held_ids(self) -> list[str]:
        return sorted(read(raw).task_id for raw, _ in self.held().values())

    def acknowledge(self, token: str, **lock: Any) -> bool:
        return self.inflight.acknowledge(self.instance, self.epoch, token, **lock)

    @property
    def hash(self) -> str:
        return self.store.wire.prefix + self.store.keys.inflight(self.instance, self.epoch)

    @property
    def index(self) -> str:
        return self.store.wire.prefix + self.store.keys.inflight_index(self.instance, self.epoch)

    def is_now(self, state: State) -> None:
        """Declared to be so, by whomever."""
        self.store.client.hset(self.store.keys.instance(self.instance), "state", state)

    def loses_its_name(self) -> Process:
        """To another process, which is returned."""
        return Process(self.store, self.instance)

    def is_forgotten(self) -> None:
        self.store.client.delete(self.store.keys.instance(self.instance))


def an_entry(entry_id: str, message: str, **known: Any) -> Shelved:
    """Something for a shelf."""
    about = {"at": 1700000000.5, "list": "celery", "reason": "as the test wants it", **known}
    return Shelved(id=entry_id, message=message, **about)


def ids(raws: Iterable[str]) -> list[str]:
    """Task ids of messages."""
    return [str(json.loads(raw)["headers"]["id"]) for raw in raws]


def a_holder(store: FleetStore, *names: str, instance: str = "w1", **joins: Any) -> Process:
    """A process that has taken these from the shared queue, in this order."""
    process = Process(store, instance, **joins)
    put(store, SHARED, *map(message, names))
    for _ in names:
        process.take()
    return process


def to_shared(task: str, queue: str) -> str:
    """A home for every task."""
    return SHARED


def rescue(process: Process, **how: Any) -> Returned:
    """Give back what a process held that is gone."""
    known = {"home": to_shared, "lost_at": AT, "lost_holders": 3, "dead": True, **how}
    return process.inflight.give_back(process.instance, process.epoch, **known)


def holders(store: FleetStore) -> list[tuple[str, int, int]]:
    return [(h.instance, h.epoch, h.held) for h in store.holders()]
