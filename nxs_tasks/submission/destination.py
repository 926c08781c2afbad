"""Where each message of a call goes: by the user's word to one queue, or where the fleet places."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple, Protocol

from nxs_tasks.deadline import within
from nxs_tasks.errors import BrokerError
from nxs_tasks.model.decision import Placement
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.places import Places
from nxs_tasks.store.publisher import Room
from nxs_tasks.submission.plan import Plan
from nxs_tasks.submission.rooms import Rooms

log = logging.getLogger(__name__)

#: Longest wait for a queue to be noted, s: the task itself comes afterwards.
NOTE_S = 0.2
ROUTED = "the queue that its options or task_routes name"


class Placing(Protocol):
    """Who chooses the instances of a fleet."""

    def place_one(self, name: str, args: Any, kwargs: Any, id_: str, at: float) -> Placement:
        """A placement for a task."""

    def place_many(
        self, name: str, args_list: Sequence[Any], ids: Sequence[str], at: float
    ) -> Sequence[Placement]:
        """A placement for each of several tasks of one name."""

    def send_samples(self) -> None:
        """Send the placements that are kept on their way to the history, if it is time."""


class Destination(NamedTuple):
    """Where a message goes and why, and how its text says so."""

    queue: str
    key: str  # of the list
    why: str
    queue_json: str
    placement: Placement | None = None
    placed_json: str = ""
    at: float = 0.0  # when it was placed, s
    room: Room | None = None  # what the list may still take


class Destinations:
    """Finds them for one process."""

    def __init__(self, runtime: Runtime, placing: Placing) -> None:
        self._runtime = runtime
        self._placing = placing
        self._own_queue = runtime.keys.own_queue("")
        self._clock = runtime.clock
        self._shared = ""
        self._noted: set[str] = set()
        self._places: dict[tuple[str, int], tuple[str, str]] = {}
        self._rooms = Rooms(runtime)

    def of_one(self, plan: Plan, args: Any, kwargs: Any, id_: str) -> Destination:
        """That of one task."""
        if plan.route is not None:
            return next(self.of(plan, (args,), (id_,)))
        at = self._clock.now()
        placement = self._placing.place_one(plan.target.name, args, kwargs, id_, at)
        return self._placed(placement, plan.level, at)

    def of(self, plan: Plan, args_list: Sequence[Any], ids: Sequence[str]) -> Iterator[Destination]:
        """One for each task; the same object for neighbours that go the same way."""
        priority = plan.level
        if plan.route is not None:
            queue = plan.route.queue
            self._note(queue)
            key, queue_json = self._place(queue, priority)
            return repeat(Destination(queue, key, ROUTED, queue_json), len(ids))
        at = self._clock.now()
        placements = self._placing.place_many(plan.target.name, args_list, ids, at)
        return self._all_placed(placements, priority, at)

    def key(self, queue: str, priority: int) -> str:
        """The list of a queue for a priority."""
        return self._place(queue, priority)[0]

    def _all_placed(
        self, placements: Sequence[Placement], priority: int, at: float
    ) -> Iterator[Destination]:
        last: Placement | None = None
        for placement in placements:
            if placement is not last:
                last, to = placement, self._placed(placement, priority, at)
            yield to

    def _placed(self, placement: Placement, priority: int, at: float) -> Destination:
        instance = placement.instance
        if instance is not None:
            queue = self._own_queue + instance
        else:
            # As Celery does: what is the default queue at the first submission stays it.
            queue = self._shared = self._shared or self._runtime.shared_queue
        key, queue_json = self._places.get((queue, priority)) or self._place(queue, priority)
        header, room = placed_json(placement, at), self._rooms.of(placement, key)
        return Destination(queue, key, placement.reason, queue_json, placement, header, at, room)

    def _note(self, queue: str) -> None:
        """Have a queue of the user's known to who looks for tasks, also if nobody consumes it."""
        if queue in self._noted or self._runtime.breaker.open:
            return
        try:
            within(NOTE_S, partial(Places(self._runtime.store()).note, queue))
        except (BrokerError, TimeoutError) as error:
            log.debug("%s is noted later: %s", queue, error)
        else:
            self._noted.add(queue)

    def _place(self, queue: str, priority: int) -> tuple[str, str]:
        found = self._places.get((queue, priority))
        if found is None:
            key = self._runtime.store().wire.list_of(queue, priority)
            found = self._places[queue, priority] = key, quoted(queue)
        return found


def placed_json(placement: Placement, at: float) -> str:
    """The header of `placed_header` as JSON."""
    to = "null" if placement.instance is None else quoted(placement.instance)
    score = "null" if placement.score is None else repr(round(placement.score, 4))
    key = f', "key": {quoted(placement.key)}' if placement.key else ""
    why = quoted(placement.reason)
    return f'{{"to": {to}, "score": {score}, "why": {why}, "at": {at!r}{key}}}'
