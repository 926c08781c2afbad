"""Messages that this process holds by the broker's account, and knows nothing of.

The answer of a claim was lost with its connection; or Celery dropped what it had received and not
started when it lost the broker. Both would wait until this process ends. What is nowhere in this
process at two looks, a while apart, is given back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import state

from nxs_tasks.clock import Clock
from nxs_tasks.store.token import parse
from nxs_tasks.transport.tenure import Ending, Tenure
from nxs_tasks.worker.handover import requests_in

log = logging.getLogger(__name__)

#: Between two looks, s: longer than any message is between two hands within this process.
APART_S = 5.0


class Strays:
    """Finds and gives back; call `look` from time to time."""

    def __init__(self, tenure: Tenure, known: Callable[[], set[str]], clock: Clock) -> None:
        self._tenure = tenure
        self._known = known
        self._clock = clock
        self._suspects: set[str] = set()
        self._looked_at = float("-inf")

    def look(self) -> int:
        """Give back what was a stray at the last look too; returns how many.

        Raises `BrokerError`.
        """
        now = self._clock.monotonic()
        if now - self._looked_at < APART_S:
            return 0
        tenure = self._tenure
        tokens = tenure.inflight.tokens(tenure.instance, tenure.epoch)
        held = {token for token in tokens if parse(token) is not None}
        try:
            known = self._known()
        except RuntimeError:
            return 0  # Celery's sets changed while they were read: at the next heartbeat
        self._looked_at = now
        kept = tenure.kept
        strays = held - known - tenure.settling() - {tenure.asked, kept.token if kept else ""}
        given_back = strays & self._suspects
        self._suspects = strays - given_back
        for token in given_back:
            log.warning("%s is held and known to nobody here: it is given back", token)
            tenure.settle(Ending(token, requeue=True, stray=True))
        return len(given_back)


def give_back_unread(tenure: Tenure, known: set[str]) -> bool:
    """Give back what the last claim took, if its answer was not read; whether there was any.

    For a worker that is known to leave, and reads no answers any more: no claim takes anything now.
    Raises `BrokerError`.
    """
    token = tenure.asked
    kept = tenure.kept.token if tenure.kept else ""
    if not token or token in {*known, *tenure.settling(), kept}:
        return False
    if token not in tenure.inflight.tokens(tenure.instance, tenure.epoch):
        return False
    tenure.settle(Ending(token, requeue=True, stray=True))
    return True


def known_tokens(worker: Any) -> set[str]:
    """Tokens of all that Celery has here: running, reserved, waiting for a rate limit."""
    requests = [*list(state.active_requests), *list(state.reserved_requests)]
    requests += [*list(state.requests.values()), *list(state.scheduled_requests)]
    requests += rate_limited(worker)
    requests += requests_in(getattr(worker, "pool", None))
    return {str(request.message.delivery_tag) for request in requests}


def rate_limited(worker: Any) -> list[Any]:
    """Celery's requests that wait here for a rate limit."""
    buckets = getattr(getattr(worker, "consumer", None), "task_buckets", None) or {}
    contents = (getattr(bucket, "contents", ()) for bucket in list(buckets.values()))
    return [item[0] for waiting in contents for item in list(waiting)]
