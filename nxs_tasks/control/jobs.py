"""The periodic jobs of the control plane: look, decide, act, remember. One function each.

Each is safe to run twice or on two nodes at once: effects check their precondition, and the
history ignores what it has.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nxs_tasks.control.cancelling import forget
from nxs_tasks.control.effects import apply_all
from nxs_tasks.control.evicting import start_evictions
from nxs_tasks.control.observing import look
from nxs_tasks.control.rebalancing import rebalance
from nxs_tasks.errors import RecordRefused
from nxs_tasks.history import History
from nxs_tasks.model.decision import Nothing, Outcome
from nxs_tasks.model.record import Record, TickRecord
from nxs_tasks.model.shelf import PARKED
from nxs_tasks.policy.fleet.cordon import clear_cordoned
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.observation import observe
from nxs_tasks.policy.fleet.parked import unpark
from nxs_tasks.policy.fleet.rescue import rescue
from nxs_tasks.runtime import Runtime
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.events import Events
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.shelves import Shelves

log = logging.getLogger(__name__)


def lifecycle(runtime: Runtime) -> list[Outcome]:
    """Evaluate the state machine of every instance, and act on it.

    What the dead hold is rescued, and what is parked goes to who knows it now.
    """
    store, snapshot = runtime.store(), look(runtime)
    if observe(snapshot, runtime.settings, snapshot.taken_at).suspect:
        store.doubt()
    decisions = evaluate(snapshot, runtime.settings, snapshot.taken_at)
    known = {i.id: i.verdict for i in snapshot.instances}
    outcomes = apply_all(
        # A reason that already stands there need not be written again.
        [d for d in decisions if not (isinstance(d, Nothing) and known[d.instance] == d.reason)],
        store,
        runtime.settings,
    )
    # With a new look: who is GONE since this moment is rescued in this moment.
    seen = store.snapshot(full=True)
    outcomes += apply_all(rescue(seen), store, runtime.settings)
    outcomes += apply_all(unpark(_parked(store), seen), store, runtime.settings)
    outcomes += apply_all(clear_cordoned(seen), store, runtime.settings)
    for outcome in outcomes:
        if not isinstance(outcome.decision, Nothing):
            log.info("%s → %s", outcome.decision, outcome.detail)
    start_evictions(runtime, outcomes)
    return outcomes


def _parked(store: FleetStore) -> Counter[str]:
    return Counter(entry.task for entry in Shelves(store).entries(PARKED))


def record(runtime: Runtime) -> int:
    """Move events from the broker's streams into the history; returns how many were new."""
    events, history = Events(runtime.store()), runtime.history()
    new = 0
    while batch := events.read():
        try:
            new += history.add(batch.records)
        except RecordRefused:
            new += sum(_add_or_tell(history, one) for one in batch.records)
        events.done(batch)
    return new


def _add_or_tell(history: History, one: Record) -> int:
    # One record that no database can hold (a task id with a NUL) must not hold up all others.
    try:
        return history.add([one])
    except RecordRefused as error:
        log.error("an event is left out of the history: %s", error)
        return 0


def prune(runtime: Runtime) -> int:
    """Delete history older than `history_days`, and what nobody needs; returns rows deleted."""
    runtime.store().tidy()
    Queues(runtime.store()).register_holders()
    forget(runtime)
    return runtime.history().prune(runtime.clock.now(), runtime.settings.history_days)


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, the setting that holds its period, and why that often."""

    do: Callable[[Runtime], object]
    period_setting: str
    why: str

    def period(self, settings: Settings) -> float:
        """Seconds between two runs."""
        return float(getattr(settings, self.period_setting))


JOBS = {
    "lifecycle": Job(
        lifecycle, "lifecycle_period", "a dead instance is GONE within gone_after + this"
    ),
    "rebalance": Job(
        rebalance, "rebalance_period", "long lines are seldom: idle instances help themselves"
    ),
    "record": Job(record, "record_period", "what happened is in the history within this"),
    "prune": Job(prune, "prune_period", "history_days is kept to the hour"),
}


def run_job(runtime: Runtime, name: str, node: str, term: int | None = None) -> None:
    """Run one job and record how late it was. `term` is that of the beat that has sent it.

    Lateness is the time since the job's last start, less its period: what an operator feels,
    whoever caused it (beat, broker, a busy control worker).
    """
    running = runtime.job_locks.setdefault(name, threading.Lock())
    if not running.acquire(blocking=False):
        # Such as a history that is locked: it must not take all threads and starve the others.
        log.warning("%s still runs and is not started again", name)
        return
    try:
        _run_and_time(runtime, name, node, term or 0)
    finally:
        running.release()
        runtime.keep_up()


def _run_and_time(runtime: Runtime, name: str, node: str, term: int) -> None:
    job = JOBS[name]
    store, clock = runtime.store(), runtime.clock.monotonic()
    # The server's time: the last run may have been on another node.
    started, events = store.now(), Events(store)
    before, newest = events.last_ticks_and_terms().get(name, (None, 0))
    if 0 < term < newest:
        # It waited while another beat took over and had it done. Before that it is not left out.
        log.info("%s of term %d is not run: it has run in term %d", name, term, newest)
        return
    period = job.period(runtime.settings)
    late = max(0.0, started - before.at - period) if before is not None else 0.0
    job.do(runtime)
    took = runtime.clock.monotonic() - clock
    events.add_tick(
        TickRecord(event_id="", at=started, job=name, lateness_s=late, took_s=took, node=node),
        max(term, newest),
    )
