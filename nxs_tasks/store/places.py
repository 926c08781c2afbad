"""Every place in Redis where a task may wait, and how to look through a place while it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from nxs_tasks.errors import MessageError
from nxs_tasks.model.shelf import DELAYED, PARKED, PAUSED
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.store.connect import explained
from nxs_tasks.store.keys import CONTROL_QUEUES
from nxs_tasks.store.message import Envelope, read
from nxs_tasks.store.queues import PAGE
from nxs_tasks.store.store import FleetStore

#: Shelves whose messages will run one day.
WAITING_SHELVES = (DELAYED, PARKED, PAUSED)
#: kombu's sets of what is bound to an exchange, and exchanges that carry no tasks.
BINDINGS = "_kombu.binding."
NO_TASKS = ("pidbox", "celeryev")


class Places:
    """The queues of one fleet."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def queues(self, snapshot: Snapshot, also: Iterable[str] = ()) -> list[str]:
        """Every queue that tasks may wait in, except control queues; `also` names further ones.

        Instances' own queues first and the shared one last, as messages move: who looks in this
        order meets each. Includes queues of instances that are forgotten.
        """
        own = self._store.keys.own_queue("")
        named = {*also, *self._bound(), *self._named()}
        for instance in snapshot.instances:
            named |= instance.profile.queues if instance.profile else set()
        others = {q for q in named if q and not q.startswith((CONTROL_QUEUES, own))}
        shared = self._store.shared_queue
        return [*sorted(self._own(own)), *sorted(others - {shared}), shared]

    def _own(self, own: str) -> set[str]:
        wire = self._store.wire
        lists = self._keys_like(wire.prefix + own)
        return {key.removeprefix(wire.prefix).partition(wire.sep)[0] for key in lists}

    def _bound(self) -> set[str]:
        """Queues that kombu has declared: also those that nobody consumes now."""
        wire = self._store.wire
        sets = [k for k in self._keys_like(wire.prefix + BINDINGS) if not k.endswith(NO_TASKS)]
        with explained(self._store.url):
            pipe = self._store.client.pipeline(transaction=False)
            for key in sets:
                pipe.smembers(key)
            return {
                member.rpartition(wire.sep)[2] for members in pipe.execute() for member in members
            }

    def note(self, queue: str) -> None:
        """Note that messages are written to a queue: kombu declares it, and we need not."""
        with explained(self._store.url):
            self._store.client.sadd(self._store.keys.named_queues(), queue)

    def _named(self) -> set[str]:
        with explained(self._store.url):
            key = self._store.keys.named_queues()
            return cast("set[str]", self._store.client.smembers(key))

    def _keys_like(self, beginning: str) -> list[str]:
        pattern = "".join("\\" + c if c in "*?[]^\\" else c for c in beginning) + "*"
        with explained(self._store.url):
            return list(cast("Iterator[str]", self._store.client.scan_iter(pattern, count=1000)))


class Walk:
    """Reads one list in pages, what is taken next first, while others take from it.

    Reads as many messages as lay there at the start: who fills the list meanwhile is not followed.
    """

    def __init__(self, store: FleetStore, key: str) -> None:
        self._store = store
        self.key = key
        #: How many are taken before the first of the page.
        self.passed = 0
        self._last = ""
        self._left: int | None = None

    def page(self) -> list[str]:
        """The next messages, oldest first; empty at the end."""
        arguments = [self._last, self.passed, PAGE]
        length, passed, texts = self._store.call("page", [self.key], arguments)
        self.passed = int(passed)
        left = int(length) - self.passed if self._left is None else self._left
        page = cast("list[str]", texts)[::-1][:left]
        self._left = left - len(page)
        return page

    def leave(self, stayed: list[str]) -> None:
        """Say which messages of the page stay in the list; all others have been removed."""
        if stayed:
            self._last = stayed[-1]
            self.passed += len(stayed)


def envelope(raw: str) -> Envelope | None:
    """What a message says, or None for what is none."""
    try:
        return read(raw)
    except MessageError:
        return None
