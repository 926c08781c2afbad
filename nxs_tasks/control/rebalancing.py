"""Level the lines of the instances: look, plan, and move what waits where it waits too long."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nxs_tasks.control.effects import apply_all
from nxs_tasks.model.decision import Decision, Migrate, Outcome
from nxs_tasks.policy.fleet.rebalance import rebalance as decide
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.intents import Intents

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be moved now, and for each instance that takes no part why not."""

    decisions: tuple[Decision, ...]
    nothing: str = ""  # why nothing is moved at all

    @property
    def moves(self) -> tuple[Migrate, ...]:
        """The migrations, the longest line first."""
        return tuple(d for d in self.decisions if isinstance(d, Migrate))


def plan(runtime: Runtime) -> Plan:
    """Look at the fleet and decide. Raises `BrokerError`."""
    store = runtime.store()
    pauses = Intents(store).pauses()
    if any(p.kind == "queue" and p.name == store.shared_queue for p in pauses):
        return Plan((), f"{store.shared_queue} is paused: a line says nothing while nobody takes")
    snapshot = store.snapshot()
    return Plan(tuple(decide(snapshot, runtime.settings, snapshot.taken_at)))


def rebalance(runtime: Runtime) -> list[Outcome]:
    """Carry out the plan of this moment; one outcome for each migration."""
    outcomes = apply_all(plan(runtime).moves, runtime.store(), runtime.settings)
    for outcome in outcomes:
        move = outcome.decision
        if isinstance(move, Migrate):
            level = logging.INFO if outcome.applied else logging.WARNING
            done = outcome.detail if outcome.applied else f"not moved, {outcome.detail}"
            text = "%s → %s, up to %d task(s): %s (%s)"
            log.log(level, text, move.source, move.target, move.tasks, done, move.reason)
    return outcomes
