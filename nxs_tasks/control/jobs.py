"""The periodic jobs of the control plane: look, decide, act, remember. One function each.

Each is safe to run twice or on two nodes at once: effects check their precondition, and the
history ignores what it has. Who is told when is in `beat_schedule.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from nxs_tasks.control.effects import apply_all
from nxs_tasks.errors import RecordRefused
from nxs_tasks.history import History
from nxs_tasks.model.decision import Nothing, Outcome
from nxs_tasks.model.record import TickRecord
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.events import Events, Record

log = logging.getLogger(__name__)


def lifecycle(runtime: Runtime) -> list[Outcome]:
    """Evaluate the state machine of every instance, and act on it."""
    store = runtime.store()
    snapshot = store.snapshot(full=True)
    decisions = evaluate(snapshot, runtime.settings, snapshot.taken_at)
    known = {i.id: i.verdict for i in snapshot.instances}
    outcomes = apply_all(
        # A reason that already stands there need not be written again.
        [d for d in decisions if not (isinstance(d, Nothing) and known[d.instance] == d.reason)],
        store,
        runtime.settings,
    )
    for outcome in outcomes:
        if not isinstance(outcome.decision, Nothing):
            log.info("%s → %s", outcome.decision, outcome.detail)
    return outcomes


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
    """Delete history older than `history_days`, and what nobody uses; returns rows deleted."""
    runtime.store().tidy()
    return runtime.history().prune(runtime.clock.now(), runtime.settings.history_days)


JOBS: dict[str, tuple[Callable[[Runtime], object], str]] = {
    # name: (what to do, the setting with its period)
    "lifecycle": (lifecycle, "lifecycle_period"),
    "record": (record, "record_period"),
    "prune": (prune, "prune_period"),
}


def run_job(runtime: Runtime, name: str, node: str) -> None:
    """Run one job and record how late it was.

    Lateness is the time since the job's last start, less its period: what an operator feels,
    whoever caused it (beat, broker, a busy control worker).
    """
    job, period_setting = JOBS[name]
    started, clock = runtime.clock.now(), runtime.clock.monotonic()
    events = Events(runtime.store())
    before = events.last_ticks().get(name)
    period = float(getattr(runtime.settings, period_setting))
    late = max(0.0, started - before.at - period) if before is not None else 0.0
    job(runtime)
    took = runtime.clock.monotonic() - clock
    events.add_tick(
        TickRecord(event_id="", at=started, job=name, lateness_s=late, took_s=took, node=node)
    )
