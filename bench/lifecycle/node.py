"""A node: the processes that have one name, one after the other, and what happens to them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from random import Random

from bench.lifecycle.records import Records
from nxs_tasks.errors import JoinRefused, NameTaken
from nxs_tasks.model.decision import Transition
from nxs_tasks.model.instance import Load
from nxs_tasks.model.state import ENDED, Event, State
from nxs_tasks.policy.fleet.transitions import TRANSITIONS, next_state

#: How long a heartbeat takes to be written, or the thread to be woken, s: the mean.
DELAY_S = 0.005
#: The same by Zipf's law with exponent 2, in steps of so much, and the most, s.
ZIPF_STEP_S, ZIPF_MOST_S = 0.05, 20.0
#: A process opens so many connections.
CONNECTIONS = 2
#: A process that may not join ends, and is started again after so long, s.
RESTART_S = 10.0
SLOTS = 4
READY = Load(slots=SLOTS, running=0, consuming=True)

Delay = Callable[[Random], float]


def ready(at: float) -> Load:
    """An idle instance that takes work."""
    return READY


def short(rng: Random) -> float:
    """The delay of a healthy network."""
    return rng.random() * 2 * DELAY_S


def zipf(rng: Random) -> float:
    """The delay of a process that is sometimes not woken for long."""
    return min(ZIPF_MOST_S, ZIPF_STEP_S * int(1.0 / (1.0 - rng.random())))


class Node:
    """Advances to a time by itself: nodes meet in the store alone, and there at ticks only.

    It beats as `worker.heartbeat` does: a period after the answer to the last one. A heartbeat that
    is lost is given up after `broker_timeout`, and the next one comes `join_period` later.
    """

    def __init__(
        self, name: str, records: Records, rng: Random, loss: float = 0.0, delay: Delay = short
    ) -> None:
        self.name = name
        self.up = False
        self.epoch = 0
        self.died_at: float | None = None
        #: When its heartbeats came, since somebody has read this.
        self.heard: list[float] = []
        #: What its heartbeats say.
        self.load: Callable[[float], Load] = ready
        #: Whether a process has started since.
        self.fresh = False
        #: Whether the process has been heard at all.
        self.known = False
        self._records = records
        self._settings = records.settings
        self._rng = rng
        self._loss = loss
        self._delay = delay
        self._processes = 0
        self._state = State.JOINING
        self._reachable = True
        self._frozen_until = -inf
        self._leaving = False
        self._beats_at = inf
        self._due: list[tuple[float, int, Callable[[float], object]]] = []
        self._numbers = count()

    # time

    def at(self, when: float, call: Callable[[float], object]) -> None:
        """Call with the time when it has come."""
        heapq.heappush(self._due, (when, next(self._numbers), call))

    def advance(self, until: float) -> None:
        """Do all that is due up to then."""
        due = self._due
        while True:
            if due and due[0][0] <= self._beats_at:
                if due[0][0] > until:
                    return
                when, _, call = heapq.heappop(due)
                call(when)
            elif self._beats_at <= until:
                self._beat(self._beats_at)
            else:
                return

    # what happens to it

    def start(self, at: float) -> None:
        """A new process takes the name."""
        if self.up:
            return
        self._processes += 1
        self._leaving = False
        try:
            self.epoch = self._records.join(at, self.name, self._identity)
        except JoinRefused:
            self.at(at + RESTART_S, self.start)
            return
        self.up, self.fresh, self.known = True, True, False
        self.died_at, self._state = None, State.JOINING
        self._connect(CONNECTIONS)
        self._beats_at = at + self._delay(self._rng)

    def kill(self, at: float) -> None:
        """`kill -9`: its connections close at once."""
        if self.up:
            self.lose_power(at)
            self._connect(0)

    def lose_power(self, at: float) -> None:
        """It ends, and the server does not learn of it."""
        if self.up:
            self.up, self.died_at, self._beats_at = False, at, inf

    def freeze(self, at: float, seconds: float) -> None:
        """It does nothing for a while; its connections stay."""
        self._frozen_until = at + seconds

    def terminate(self, at: float, drain_s: float) -> None:
        """SIGTERM: it says so at once, and ends when what it runs has ended."""
        if self.up and not self._leaving:
            self._leaving = True
            self._beats_at = at
            self.at(at + drain_s, self._stop)

    def cut(self, at: float, *, closed: bool) -> None:
        """The server cannot be reached any more; its side of the connections is closed, or not."""
        self._reachable = False
        if closed:
            self._connect(0)

    def mend(self, at: float) -> None:
        """It can be reached again: with the next heartbeat the process connects anew."""
        self._reachable = True

    # what it does

    @property
    def _identity(self) -> str:
        return f"{self.name}/{self._processes}"

    def _connect(self, connections: int) -> None:
        self._records.connections[self.name] = connections

    def _beat(self, at: float) -> None:
        if at < self._frozen_until:
            self._beats_at = self._frozen_until
            return
        settings, rng, records, name = self._settings, self._rng, self._records, self.name
        if not self._reachable or (self._loss and rng.random() < self._loss):
            self._beats_at = at + settings.broker_timeout + settings.join_period
            return
        state = records.heartbeat(at, name, self.epoch, self.load(at))
        if state is not State.ACTIVE or self._state is not state or self._leaving:
            self._answered(at, state)
        self.heard.append(at)
        self.known = True
        records.connections[name] = CONNECTIONS
        self._beats_at = at + self._delay(rng) + self._period

    @property
    def _period(self) -> float:
        if self._state is State.JOINING:
            return self._settings.join_period
        return self._settings.heartbeat_period

    def _answered(self, at: float, state: State | None) -> None:
        if state is not None:
            self._state = state
        if self._leaving:
            self._say_that_it_leaves(at)
        elif state is State.ZOMBIE:
            self._join_again(at, self.epoch)
        elif state is None or state in ENDED:
            self._join_again(at, self.epoch + 1)

    def _join_again(self, at: float, epoch: int) -> None:
        try:
            self.epoch = self._records.join(at, self.name, self._identity, keep_epoch=epoch)
            self._state = State.JOINING
        except (JoinRefused, NameTaken):
            return  # it tries again with each heartbeat

    def _say_that_it_leaves(self, at: float) -> None:
        if (self._state, Event.SHUTDOWN) not in TRANSITIONS:
            return
        target = next_state(self._state, Event.SHUTDOWN)
        self._records.apply(
            at,
            Transition(
                instance=self.name,
                epoch=self.epoch,
                source=self._state,
                target=target,
                event=Event.SHUTDOWN,
                reason="SIGTERM",
            ),
        )
        self._state = target

    def _stop(self, at: float) -> None:
        if self.up:
            self._records.heartbeat(at, self.name, self.epoch, self.load(at), last=True)
            self.up, self._beats_at = False, inf
            self._connect(0)
