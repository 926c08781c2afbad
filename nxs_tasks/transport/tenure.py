"""Under which name and epoch this process holds messages, and what it still has to settle.

The transport takes messages under it, the gate and the acknowledgements name it, and the heartbeat
changes its epoch when the process had lost its place and joins anew. Messages of an old epoch keep
the old one in their token, so nothing that belongs to them is mistaken for ours.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Protocol

from nxs_tasks.errors import BrokerError, Stale
from nxs_tasks.model.decision import Steal
from nxs_tasks.model.shelf import QUARANTINE, Shelved
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.checkpoints import Checkpoints
from nxs_tasks.store.claim import NONE, Wishes
from nxs_tasks.store.homes import lasting
from nxs_tasks.store.inflight import Inflight
from nxs_tasks.store.message import UNIQUE_HEADER, age_of, as_text
from nxs_tasks.store.token import Token, parse
from nxs_tasks.transport.ahead import Ahead

log = logging.getLogger(__name__)

#: Two processes of one name and epoch begin their numbers this far apart by chance.
START_BITS = 40


@dataclass(frozen=True, slots=True)
class Claimed:
    """One message that was taken and is held, before Celery has seen it."""

    token: str
    queue: str
    raw: str
    intents: bool  # some task is cancelled or paused
    at: float  # when, by the server's clock, s
    message: Any = None  # kombu's, None while it could not be read
    until: float | None = None  # it was taken ahead and starts before then, monotonic, s

    @property
    def task(self) -> str:
        """The name of its task, "" if it says none."""
        headers = getattr(self.message, "headers", None)
        return as_text(headers.get("task")) if isinstance(headers, dict) else ""


class Room(Protocol):
    """What the running tasks leave free (`worker.capacity`)."""

    def has_slot(self) -> bool:
        """Whether another task of one slot fits."""

    def fits(self, task: str) -> bool:
        """Whether a task of that name fits now."""


class Boundless:
    """Room for everything that the pool has a slot for."""

    def has_slot(self) -> bool:
        """Always."""
        return True

    def fits(self, task: str) -> bool:
        """Always."""
        return True


def at_once() -> bool:
    """Nobody tells later how something ended."""
    return False


#: Decides whether Celery gets a message; if not it has put it elsewhere.
Gate = Callable[[Claimed], bool]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a held message is done with."""

    token: str
    requeue: bool = False  # else it is dropped
    lost: bool = False  # requeued because the pool process that ran it died
    stray: bool = False  # requeued because this process never had it in its hands
    ahead: bool = False  # requeued because it was taken ahead: it goes back to where it was
    to: str = ""  # requeued for this instance
    unique_key: str = ""
    task_id: str = ""
    age: int = 0
    moves: bool = False  # requeued because it goes on elsewhere
    checkpoint: bool = False  # what it saved is not needed any more


@dataclass(slots=True, repr=False, eq=False)
class Tenure:
    """What this process holds its messages under. Used by several threads.

    Without a `repr` of its fields: it stands among the transport options, which are shown.
    """

    store: FleetStore
    instance: str
    epoch: int
    gate: Gate = lambda claimed: True
    settings: Settings = field(default_factory=Settings)
    #: Whether a queue has the worker's tasks; any other that somebody reads here is kombu's.
    has_tasks: Callable[[str], bool] = lambda queue: True
    #: Whether tasks of a name may have a checkpoint.
    has_checkpoint: Callable[[str], bool] = lambda task: False
    #: What the running tasks leave free.
    room: Room = field(default_factory=Boundless)
    #: Affinity keys of what was taken here, the newest first.
    keys: deque[str] = field(default_factory=deque)
    #: How long the oldest task may be passed over for one whose key is warm here, s.
    longest_s: Callable[[], float] = lambda: 0.0
    #: Since when there was nothing to take, monotonic, s; None while there is.
    idle_since: float | None = None
    #: Whose waiting tasks are taken while there is nothing else.
    theft: Steal | None = None
    #: Why this process is not ready for work yet, in its own words; "" = it is.
    progress: Callable[[], str] = lambda: ""
    #: Whether nothing is to be taken until it is known whose fault some failures are.
    suspended: bool = False
    #: Who has taken this instance out of service, and why, as of the last heartbeat; "" = nobody.
    cordoned: str = ""
    #: Why the consumer is to lose its connection, so that Celery makes it anew; "" = it is not.
    lose: str = ""
    #: Its state as the last heartbeat was told it.
    state: State = State.JOINING
    #: What is wrong with how tasks go here; "" = nothing is known to be.
    unhealthy: str = ""
    #: What this process takes before there is a slot for it.
    ahead: Ahead = field(default_factory=Ahead)
    #: Called when the broker said that this process may have lost its place.
    on_displaced: Callable[[], None] = lambda: None
    #: Called when a message is kept because there is no room, or is kept no more.
    on_kept: Callable[[], None] = lambda: None
    #: Whether who calls `settle` need not tell it: it is told at the next turn of the event loop.
    tells_soon: Callable[[], bool] = at_once
    #: Called with kombu's message when Celery raised instead of starting it.
    on_stumble: Callable[[Any], None] = lambda message: None
    #: Tokens of tasks whose pool process died: their return counts as a loss.
    lost: set[str] = field(default_factory=set)
    #: Tokens of tasks that end without being done for good (a retry keeps its unique_key).
    unfinished: set[str] = field(default_factory=set)
    #: Tokens of tasks that have stopped at a checkpoint, to go on elsewhere.
    moving: set[str] = field(default_factory=set)
    #: Tokens of what has ended, and is still being reported.
    ending: set[str] = field(default_factory=set)
    #: Endings that the broker has not heard yet.
    unsettled: dict[str, Ending] = field(default_factory=dict)
    #: Token of the delivery that was asked for last; its answer may be on the way.
    asked: str = ""
    #: Acknowledgements that came too late, in all.
    refused: int = 0
    #: None or one message that waits here: see `kept`. Of two threads that take it, one gets it.
    _kept: deque[Claimed] = field(default_factory=deque)
    _ended: set[str] = field(default_factory=set)
    _telling: set[str] = field(default_factory=set)
    #: From a start of its own: a server that has lost its data gives out the same epoch again.
    _numbers: itertools.count[int] = field(
        default_factory=lambda: itertools.count(random.getrandbits(START_BITS))
    )

    @property
    def inflight(self) -> Inflight:
        """What processes hold."""
        return Inflight(self.store)

    @property
    def kept(self) -> Claimed | None:
        """A message that waits here until there is room for it, or was taken ahead."""
        with suppress(IndexError):
            return self._kept[0]
        return None

    @kept.setter
    def kept(self, claimed: Claimed | None) -> None:
        self._kept.clear()
        if claimed is not None:
            self._kept.append(claimed)

    def take_kept(self) -> Claimed | None:
        """It waits here no more, and the caller alone decides what becomes of it."""
        with suppress(IndexError):
            return self._kept.popleft()
        return None

    def next_token(self) -> Token:
        """A name for the next delivery to this process."""
        token = Token(self.instance, self.epoch, next(self._numbers))
        self.asked = str(token)
        return token

    def wishes(self, ahead: int = 0) -> Wishes:
        """What this process would rather take next, and where else.

        `ahead` is how many slots it has, if it takes one ahead: nothing is stolen then.
        """
        theft = None if ahead else self.theft
        if theft is None and not self.keys and not ahead:
            return NONE
        return Wishes(
            warm=tuple(map(quoted, self.keys)),
            longest_s=self.longest_s(),
            others=() if ahead else self._their_queues,
            names=None if theft is None else theft.names,
            ahead=ahead,
        )

    @property
    def _their_queues(self) -> tuple[str, ...]:
        theft = self.theft
        return () if theft is None else tuple(map(self.store.keys.own_queue, theft.victims))

    def took(self, queue: str | None, now: float) -> None:
        """Note that something was taken from a queue, or that there was nothing (None)."""
        if queue is None:
            self.idle_since = now if self.idle_since is None else self.idle_since
        elif queue not in self._their_queues:
            self.idle_since = self.theft = None

    def use_key(self, key: str, most: int) -> None:
        """Note that a task with an affinity key begins; `most` are remembered."""
        with suppress(ValueError):
            self.keys.remove(key)
        self.keys.appendleft(key)
        while len(self.keys) > most:
            self.keys.pop()

    def end(self, token: str, message: Any, *, requeue: bool) -> None:
        """A task is done with: told once, by whoever comes first of Celery and kombu."""
        if token in self._ended:
            self._ended.discard(token)
            return
        self._ended.add(token)
        self.ahead.ends += 1
        headers = getattr(message, "headers", None) or {}
        done = not requeue and token not in self.unfinished
        ending = Ending(
            token=token,
            requeue=requeue,
            lost=token in self.lost,
            unique_key=str(headers.get(UNIQUE_HEADER) or "") if done else "",
            task_id=str(headers.get("id") or ""),
            age=age_of(headers),
            moves=requeue and token in self.moving,
            checkpoint=done and self.has_checkpoint(as_text(headers.get("task"))),
        )
        self.lost.discard(token)
        self.moving.discard(token)
        self.unfinished.discard(token)
        self.settle(ending)

    def give_back_kept(self, *, leaving: bool = False) -> None:
        """Give back what is kept: to where it was, or to others if this process is `leaving`."""
        kept = self.take_kept()
        if kept is not None:
            self.settle(Ending(kept.token, requeue=True, stray=leaving, ahead=not leaving))
            # So that those who look for work hear how many wait here.
            self.on_kept()

    def send_kept(self, instance: str) -> bool:
        """Give what is kept to an instance that has room for it; False if it began meanwhile."""
        kept = self.take_kept()
        if kept is not None:
            self.settle(Ending(kept.token, requeue=True, stray=True, to=instance))
            self.on_kept()
        return kept is not None

    def settle(self, ending: Ending) -> None:
        """Tell the broker how a message ended; kept for later if it does not answer."""
        self.unsettled[ending.token] = ending
        if ending.requeue or not self.tells_soon():
            self.settle_all()

    def settle_all(self) -> None:
        """Tell the broker every ending that it has not heard yet."""
        for token in list(self.unsettled):
            # Taken out first: of two threads, one tells it.
            ending = self.unsettled.pop(token, None)
            if ending is None:
                continue
            self._telling.add(token)
            try:
                if not self._tell(ending):
                    self._note_refusal(ending)
            except BrokerError as error:
                self.unsettled[token] = ending
                log.warning("%d ended task(s) are told later: %s", len(self.unsettled), error)
                return
            except Exception:
                # Whatever it is: an ending that is forgotten makes its task run again.
                self.unsettled[token] = ending
                log.exception("how %s ended cannot be told, and is tried again", token)
            finally:
                self._telling.discard(token)

    def settling(self) -> set[str]:
        """Tokens of what has ended here, and the broker may not know it yet."""
        return {*self.unsettled, *self._telling, *self.ending}

    @contextmanager
    def ends(self, token: str) -> Iterator[None]:
        """While the end of a task is reported: nobody gives its message back. May be nested."""
        outermost = token not in self.ending
        self.ending.add(token)
        try:
            yield
        finally:
            if outermost:
                self.ending.discard(token)

    def _tell(self, ending: Ending) -> bool:
        token = parse(ending.token)
        if token is None:
            return True
        if ending.requeue:
            return self._give_back(token, ending)
        return self.inflight.acknowledge(
            token.instance,
            token.epoch,
            ending.token,
            unique_key=ending.unique_key,
            task_id=ending.task_id,
            age=ending.age,
            checkpoint=ending.checkpoint,
        )

    def _give_back(self, token: Token, ending: Ending) -> bool:
        back = self.inflight.give_back(
            token.instance,
            token.epoch,
            self._way(ending),
            tokens=[ending.token],
            lost_at=self.store.now() if ending.lost else None,
            lost_holders=self.settings.lost_holders,
            # A task that asks for it again and again must not keep all others waiting.
            last=not (ending.lost or ending.stray or ending.ahead or ending.moves),
            # Or who it has just left, now idle, would take it back at once.
            pinned=ending.moves,
        )
        return bool(back.to_queues or back.to_quarantine)

    def _way(self, ending: Ending) -> Callable[[str, str], str]:
        if ending.to:
            own = self.store.keys.own_queue(ending.to)
            return lambda task, queue: own
        if ending.ahead:
            return lambda task, queue: queue
        if not ending.moves:
            return self.home
        return Checkpoints(self.store).way(ending.task_id, self.instance, self.settings)

    def home(self, task: str, queue: str) -> str:
        """Where a message goes back to."""
        return lasting(self.store, queue)

    def shelve(
        self, claimed: Claimed, shelf: str, entry: Shelved, *, unique_key: str = "", age: int = 0
    ) -> None:
        """Put a held message on a shelf, and free its `unique_key`. Raises `BrokerError`."""
        where = self._place_of(claimed)
        if not self.inflight.shelve(*where, shelf, entry, unique_key=unique_key, age=age):
            log.warning("%s had been taken from this process", claimed.token)

    def shelve_paused(self, claimed: Claimed, entry: Shelved) -> bool:
        """The same while its task is paused; False if it is not. Raises `BrokerError`."""
        return self.inflight.shelve_paused(*self._place_of(claimed), entry)

    def _place_of(self, claimed: Claimed) -> tuple[str, int, str]:
        token = parse(claimed.token)
        if token is None:
            raise Stale(f"{claimed.token!r} is no token")
        return token.instance, token.epoch, claimed.token

    def quarantine(self, claimed: Claimed, reason: str) -> None:
        """Put a held message into quarantine. Raises `BrokerError`."""
        headers = getattr(claimed.message, "headers", None) or {}
        entry = Shelved(
            id=claimed.token,
            at=claimed.at,
            list=self.store.wire.list_of(self.home("", claimed.queue), 0),
            message=claimed.raw,
            reason=reason,
            task_id=as_text(headers.get("id")),
            task=as_text(headers.get("task")),
        )
        # What waits for a person must not keep all later ones of its key from running.
        unique_key = as_text(headers.get(UNIQUE_HEADER))
        self.shelve(claimed, QUARANTINE, entry, unique_key=unique_key, age=age_of(headers))

    def _note_refusal(self, ending: Ending) -> None:
        self.refused += 1
        log.warning(
            "an acknowledgement is refused: the message had been taken from this process (%s)",
            ending.token,
        )
        self.on_displaced()
