"""What runs in a process that submits tasks: the router, its snapshot, and the trace it leaves.

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
from collections import Counter, deque
from dataclasses import replace
from typing import Any

from kombu import Exchange, Queue

from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Explanation, Placement
from nxs_tasks.policy.fleet.placement import Placer, explain
from nxs_tasks.runtime import CONTROL_TASKS, Runtime
from nxs_tasks.store.events import Events
from nxs_tasks.store.message import PLACED_HEADER

log = logging.getLogger(__name__)

#: Own placements younger than this may not be in a snapshot yet: decided, but not yet written.
IN_FLIGHT_S = 0.1
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


class View:
    """The fleet as this process sees it, at most `view_max_age` old, plus its own placements."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._placer: Placer | None = None
        self._looked_at = float("-inf")
        self._recent: deque[tuple[float, str]] = deque()
        self._failed = False

    def placer(self) -> Placer | None:
        """The current placer, or None while the broker does not answer."""
        now = self._runtime.clock.monotonic()
        if now - self._looked_at >= self._runtime.settings.view_max_age:
            self._look(now)
        return self._placer

    def count(self, instance_id: str) -> None:
        """Remember an own placement, for the next snapshot that may not know it yet."""
        self._recent.append((self._runtime.clock.monotonic(), instance_id))

    def _look(self, now: float) -> None:
        self._looked_at = now
        try:
            snapshot = self._runtime.store().snapshot()
        except NxsError as error:
            self._placer = None
            if not self._failed:
                log.warning("no view of the fleet, tasks go to the shared queue: %s", error)
            self._failed = True
            # From the end of the try: it may have taken longer than a view may be old, and asking
            # a dead broker at every publish would add a time-out to each.
            self._looked_at = self._runtime.clock.monotonic()
            return
        self._failed = False
        while self._recent and self._recent[0][0] < now - IN_FLIGHT_S:
            self._recent.popleft()
        carried = Counter(instance_id for _, instance_id in self._recent)
        self._placer = Placer(snapshot, self._runtime.settings, carried)


class Submitter:
    """The router of one app in one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues: dict[str, Queue] = {}
        self._control = queue_to(runtime.keys.control_queue())
        self._own_queues = runtime.keys.own_queue("")
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        runtime.flushers.append(self.flush)
        atexit.register(self.flush)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._view = View(self._runtime)
        self._chosen = threading.local()
        self._samples: deque[tuple[str, str, dict[str, str]]] = deque(maxlen=BUFFER)
        self._flushed_with: Placer | None = None
        self._flush_due = False

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
        placement, explanation = self._place(name)
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

    def _place(self, name: str) -> tuple[Placement, Explanation | None]:
        with self._lock:
            placer = self._view.placer()
            if placer is None:
                reason = "the fleet is out of sight: the broker does not answer"
                return Placement(task=name, instance=None, score=None, reason=reason), None
            explanation = None
            if self._sampled():
                # Before placing: the explanation must see what the choice sees.
                among = replace(placer.snapshot, instances=placer.contenders(name, CANDIDATES_KEPT))
                explanation = explain(name, among, self._runtime.settings, placer.placed)
            placement = placer.place(name)
            if placement.instance is not None:
                self._view.count(placement.instance)
            self._flush_due = self._flush_due or placer is not self._flushed_with
            self._flushed_with = placer
        return placement, explanation

    def _sampled(self) -> bool:
        share = self._runtime.settings.placement_sample
        return share > 0 and (share >= 1 or random.random() < share)

    def on_publish(
        self, sender: str, headers: dict[str, Any], routing_key: str | None = None, **_: Any
    ) -> None:
        """Receiver of `before_task_publish`: write the placement into the message."""
        chosen = getattr(self._chosen, "value", None)
        self._chosen.value = None
        if chosen is None or chosen[0].task != sender:
            return
        placement, explanation = chosen
        now = self._runtime.clock.now()
        headers[PLACED_HEADER] = {
            "to": placement.instance,
            "score": None if placement.score is None else round(placement.score, 4),
            "why": placement.reason,
            "at": now,
        }
        if explanation is not None:
            fields = placement_fields(placement, explanation, now)
            with self._lock:
                self._samples.append((str(headers.get("id", "")), sender, fields))
        # A sample waits for the next look at the fleet; who wants all of them wants them now.
        if self._samples and (self._flush_due or self._runtime.settings.placement_sample >= 1):
            self._flush_due = False
            self.flush()

    def flush(self) -> None:
        """Send the sampled placements to the history's stream."""
        with self._lock:
            samples, self._samples = self._samples, deque(maxlen=BUFFER)
        if not samples:
            return
        try:
            Events(self._runtime.store()).add_placements(samples)
        except NxsError as error:
            log.warning("%d sampled placements are not kept: %s", len(samples), error)


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
