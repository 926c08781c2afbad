"""Processes that have lost their place: the one before us under our name, and we ourselves."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress

from celery.worker import state

from nxs_tasks.errors import Stale
from nxs_tasks.store.homes import homes
from nxs_tasks.store.token import parse
from nxs_tasks.transport.tenure import Tenure

log = logging.getLogger(__name__)

#: Exit code of a worker whose name belongs to another: sysexits' EX_UNAVAILABLE.
EXIT_REPLACED = 69


def rescue_predecessors(tenure: Tenure) -> None:
    """Give back at once what processes held that had this name before. Raises `BrokerError`."""
    store = tenure.store
    mine = [h for h in store.holders() if h.instance == tenure.instance and h.epoch < tenure.epoch]
    if not mine:
        return
    where = homes(store)
    for holder in mine:
        with suppress(Stale):  # somebody else has taken the name meanwhile, and does it
            back = tenure.inflight.give_back(
                holder.instance,
                holder.epoch,
                where,
                lost_at=store.now(),
                lost_holders=tenure.settings.lost_holders,
                dead=True,
            )
            if back.to_queues or back.to_quarantine:
                log.warning(
                    "%d task(s) of the process before this one given back, %d put into quarantine",
                    back.to_queues,
                    back.to_quarantine,
                )


def stop_displaced(epoch: int) -> None:
    """Kill the pool processes that run what was given to others. Other pools run to their end.

    What they would commit is refused; what they do beside, nobody can refuse.
    """
    for request in list(state.active_requests):
        token = parse(request.message.delivery_tag)
        if token is None or token.epoch >= epoch:
            continue
        log.warning("%s[%s] was given to another instance meanwhile", request.name, request.id)
        if request.worker_pid and request.worker_pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGKILL)


def end_worker(exit_code: int = EXIT_REPLACED) -> None:
    """Ask Celery to shut this worker down: it can take no work any more."""
    state.should_stop = exit_code


def drain_worker() -> None:
    """Ask Celery for a warm shutdown: somebody has drained this worker."""
    if state.should_stop is None:
        state.should_stop = 0
