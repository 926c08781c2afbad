"""What runs in a process that submits tasks: the router, and the trace that it leaves.

Celery asks its routers for each publish (`delay`, `apply_async`, canvas, beat, `send_task`), but
tells them no task id. So the router remembers its choice for the thread, and the signal that
follows just before the publish writes it into the message's headers and, for a sample, into the
history.

The router never breaks a publish: without a view of the fleet the task goes to the shared queue,
as in plain Celery.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import random
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from kombu import Exchange, Queue

from nxs_tasks.deadline import within
from nxs_tasks.errors import BrokerUnreachable, NxsError
from nxs_tasks.model.decision import Explanation, Placement
from nxs_tasks.model.demand import Demand
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.policy.fleet.placer import Placer
from nxs_tasks.runtime import CONTROL_TASKS, Runtime
from nxs_tasks.store.connect import explained
from nxs_tasks.store.events import Events
from nxs_tasks.store.message import PLACED_HEADER, placed_header
from nxs_tasks.traits import Declared, Demands
from nxs_tasks.view import View

log = logging.getLogger(__name__)

#: Of `submit_deadline`: to look at the fleet, and to send what was sampled. Most is the task's own.
LOOK_SHARE = 0.15
FLUSH_SHARE = 0.05
#: Candidates kept with a sampled placement.
CANDIDATES_KEPT = 10
#: Sampled placements buffered until the next look at the fleet.
BUFFER = 1000


def queue_to(name: str) -> Queue:
    """A queue to publish to by name alone: anonymous exchange, no declaration, no binding."""
    return Queue(name, Exchange(""), routing_key=name, no_declare=True)


def straight_to(queue: Queue) -> dict[str, Any]:
    """A route that declares nothing: left to itself kombu binds a copy of the queue to find out.

    A new list each time, because kombu may add to it.
    """
    return {"queue": queue, "declare": []}


class Submitter:
    """The router of one app in one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues: dict[str, Queue] = {}
        self._control = queue_to(runtime.keys.control_queue())
        self._own_queues = runtime.keys.own_queue("")
        self._share = runtime.settings.placement_sample
        self._demands = Demands(runtime.app)
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        runtime.flushers.append(self.flush)
        atexit.register(self.flush)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        runtime = self._runtime
        self._view = View(self._look, runtime.settings, runtime.clock, runtime.breaker)
        self._chosen = threading.local()
        self._samples: deque[tuple[str, str, dict[str, str]]] = deque(maxlen=BUFFER)
        self._flushed_with: Placer | None = None
        self._flush_due = False

    def _look(self) -> Snapshot:
        """The fleet, unless it takes so long that the task itself would come too late."""
        runtime = self._runtime
        with explained(runtime.broker_url):
            seconds = LOOK_SHARE * runtime.settings.submit_deadline
            return within(seconds, runtime.store().snapshot)

    def route(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: dict[str, Any] | None = None,
        task: Any = None,
        **_: Any,
    ) -> dict[str, Any] | None:
        """Celery's router interface: a route with a queue, or None for the default queue."""
        self._chosen.value = None
        self._runtime.require_accepted()
        if name.startswith(CONTROL_TASKS):
            return straight_to(self._control)
        if options is not None and not self._may_choose(options):
            return None
        placement, explanation = self._place(name, args, kwargs)
        self._chosen.value = (placement, explanation)
        if placement.instance is None:
            return None
        queue = self._queues.get(placement.instance)
        if queue is None:
            own = self._runtime.keys.own_queue(placement.instance)
            queue = self._queues[placement.instance] = queue_to(own)
        return straight_to(queue)

    def _may_choose(self, options: dict[str, Any]) -> bool:
        queue = options.get("queue")
        if queue is None:
            return not (options.get("exchange") or options.get("routing_key"))
        # A retry names the queue that its task came from. For an instance's own queue that was
        # our choice, not the user's, and it is made anew.
        if str(queue.name).startswith(self._own_queues):
            del options["queue"]
            return True
        return False

    def _place(self, name: str, args: Any, kwargs: Any) -> tuple[Placement, Explanation | None]:
        with self._lock:
            placer = self._placer()
            if placer is None:
                return out_of_sight(name), None
            demand = self._demands.of(name, placer.traits).demand(args, kwargs)
            # Before placing: the explanation must see what the choice sees.
            explanation = self._explained(placer, demand) if self._sampled() else None
            placement = placer.place(demand)
            if placement.instance is not None:
                self._view.count(demand, (placement,))
        return placement, explanation

    def place_one(self, name: str, args: Any, kwargs: Any, id_: str, at: float) -> Placement:
        """As `place_many`."""
        self._chosen.value = None
        placement, explanation = self._place(name, args, kwargs)
        if explanation is not None:
            self._keep_sample(id_, placement, explanation, at)
        return placement

    def place_many(
        self, name: str, args_list: Sequence[Any], ids: Sequence[str], at: float
    ) -> list[Placement]:
        """A placement for each of several tasks of one name that are submitted together.

        `at` is the time that is kept with the placements which are sampled, s.
        """
        self._chosen.value = None
        placements: list[Placement] = []
        with self._lock:
            placer = self._placer()
            if placer is None:
                return [out_of_sight(name)] * len(ids)
            task = self._demands.of(name, placer.traits)
            start = 0
            for demand, stop in _runs(task, args_list):
                placements += self._place_some(placer, demand, ids[start:stop], at)
                start = stop
        return placements

    def _place_some(
        self, placer: Placer, demand: Demand, ids: Sequence[str], at: float
    ) -> list[Placement]:
        placements: list[Placement] = []
        for n in [n for n in range(len(ids)) if self._sampled()]:
            placements += placer.place_many(demand, n - len(placements))
            explanation = self._explained(placer, demand)
            placements.append(placer.place(demand))
            fields = placement_fields(placements[-1], explanation, at)
            self._samples.append((ids[n], demand.task, fields))
        placements += placer.place_many(demand, len(ids) - len(placements))
        self._view.count(demand, placements)
        return placements

    def _placer(self) -> Placer | None:
        placer = self._view.placer()
        if placer is not None:
            self._flush_due = self._flush_due or placer is not self._flushed_with
            self._flushed_with = placer
        return placer

    def _explained(self, placer: Placer, demand: Demand) -> Explanation:
        among = replace(placer.snapshot, instances=placer.contenders(demand, CANDIDATES_KEPT))
        return explain(demand, among, self._runtime.settings, placer.placed, placer.ranking)

    def _sampled(self) -> bool:
        share = self._share
        return share > 0 and (share >= 1 or random.random() < share)

    def on_publish(
        self, sender: str, headers: dict[str, Any], routing_key: str | None = None, **_: Any
    ) -> None:
        """Receiver of `before_task_publish`: write the placement into the message."""
        chosen = getattr(self._chosen, "value", None)
        self._chosen.value = self._chosen.placed = None
        if chosen is None or chosen[0].task != sender:
            return
        placement, explanation = chosen
        self._chosen.placed = placement
        now = self._runtime.clock.now()
        headers[PLACED_HEADER] = placed_header(placement, now)
        if explanation is not None:
            self._keep_sample(str(headers.get("id", "")), placement, explanation, now)
        self.send_samples()

    def placed(self, queue: str) -> Placement | None:
        """The placement of the message that this thread publishes now, if that is its queue."""
        placement: Placement | None = getattr(self._chosen, "placed", None)
        self._chosen.placed = None
        if placement is None or placement.instance is None:
            return None
        return placement if queue == self._own_queues + placement.instance else None

    def _keep_sample(
        self, id_: str, placement: Placement, explanation: Explanation, at: float
    ) -> None:
        fields = placement_fields(placement, explanation, at)
        with self._lock:
            self._samples.append((id_, placement.task, fields))

    def send_samples(self) -> None:
        """Send the sampled placements if it is time.

        A sample waits for the next look at the fleet; who wants all of them wants them now.
        """
        if self._samples and (self._flush_due or self._runtime.settings.placement_sample >= 1):
            self._flush_due = False
            self.flush()

    def flush(self) -> None:
        """Send the sampled placements to the history's stream."""
        with self._lock:
            samples, self._samples = self._samples, deque(maxlen=BUFFER)
        if not samples:
            return
        runtime = self._runtime
        events, seconds = Events(runtime.store()), FLUSH_SHARE * runtime.settings.submit_deadline
        try:
            if runtime.breaker.open:
                raise BrokerUnreachable(runtime.breaker.why)
            with explained(runtime.broker_url):
                within(seconds, partial(events.add_placements, samples))
        except NxsError as error:
            log.warning("%d sampled placements are not kept: %s", len(samples), error)


def _runs(task: Declared, args_list: Sequence[Any]) -> Iterator[tuple[Demand, int]]:
    """What neighbours ask alike, and where they end."""
    if not task.has_keys:
        yield task.demand((), {}), len(args_list)
        return
    demands = (task.demand(args, None) for args in args_list)
    stop = 0
    for demand, alike in groupby(demands):
        stop += sum(1 for _ in alike)
        yield demand, stop


def out_of_sight(name: str) -> Placement:
    """The placement of a task while the broker does not answer."""
    reason = "the fleet is out of sight: the broker does not answer"
    return Placement(task=name, instance=None, score=None, reason=reason)


def placement_fields(placement: Placement, explanation: Explanation, now: float) -> dict[str, str]:
    """A placement as fields of a stream entry; the best candidates first."""
    ranked = sorted(
        explanation.candidates,
        key=lambda c: (c.instance != placement.instance, -(c.score or 0.0), c.instance),
    )
    kept = [
        {
            "instance": c.instance,
            "score": None if c.score is None else round(c.score, 4),
            "terms": c.terms.as_dict(),
            "why_not": c.why_not,
        }
        for c in ranked
    ]
    return {
        "at": repr(now),
        "instance": placement.instance or "",
        "score": "" if placement.score is None else repr(placement.score),
        "reason": placement.reason,
        "candidates": json.dumps(kept),
    }
