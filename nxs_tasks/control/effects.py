"""One small function for each kind of decision. State and epoch are checked in the store's script.

An effect that finds the world changed does nothing and says so: the next tick sees it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nxs_tasks.errors import BrokerError, BrokerUnreachable, MessageError, Stale
from nxs_tasks.model.decision import (
    Decision,
    Forget,
    Migrate,
    Nothing,
    Outcome,
    Release,
    Rescue,
    Transition,
    Unpark,
    Withhold,
)
from nxs_tasks.model.shelf import PARKED
from nxs_tasks.settings import Settings
from nxs_tasks.store import FleetStore
from nxs_tasks.store.homes import homes
from nxs_tasks.store.inflight import Inflight
from nxs_tasks.store.message import reroute
from nxs_tasks.store.migration import migrate
from nxs_tasks.store.shelves import Shelves

log = logging.getLogger(__name__)

DAY_S = 86_400


def _transition(decision: Transition, store: FleetStore, settings: Settings) -> str:
    return store.transition(decision)


def _withhold(decision: Withhold, store: FleetStore, settings: Settings) -> str:
    store.withhold(decision)
    log.error("%s gets no work: %s", decision.instance, decision.reason)
    return "withheld" if decision.until else "told"


def _release(decision: Release, store: FleetStore, settings: Settings) -> str:
    return f"{store.release(decision)} task(s) moved"


def _forget(decision: Forget, store: FleetStore, settings: Settings) -> str:
    store.forget(decision, settings.outcome_days * DAY_S)
    return "record removed"


def _rescue(decision: Rescue, store: FleetStore, settings: Settings) -> str:
    back = Inflight(store).give_back(
        decision.instance,
        decision.epoch,
        homes(store),
        lost_at=store.now(),
        lost_holders=settings.lost_holders,
        dead=True,
    )
    aside = f", {back.to_quarantine} put into quarantine" if back.to_quarantine else ""
    return f"{back.to_queues} task(s) given back{aside}"


def _unpark(decision: Unpark, store: FleetStore, settings: Settings) -> str:
    shelves, queue = Shelves(store), store.keys.own_queue(decision.instance)
    entries = [
        replace(e, message=reroute(e.message, queue))
        for e in shelves.entries(PARKED)
        if e.task == decision.task
    ]
    return f"{shelves.take(PARKED, entries, 'front', queue=queue)} task(s) placed"


def _migrate(decision: Migrate, store: FleetStore, settings: Settings) -> str:
    return str(migrate(store, decision, settings))


def _nothing(decision: Nothing, store: FleetStore, settings: Settings) -> str:
    store.note(decision)
    return "noted"


EFFECTS: dict[type[Any], Callable[[Any, FleetStore, Settings], str]] = {
    Transition: _transition,
    Withhold: _withhold,
    Release: _release,
    Forget: _forget,
    Rescue: _rescue,
    Unpark: _unpark,
    Migrate: _migrate,
    Nothing: _nothing,
}


def apply(decision: Decision, store: FleetStore, settings: Settings) -> Outcome:
    """Carry out one decision. Raises `BrokerUnreachable` only."""
    try:
        detail = EFFECTS[type(decision)](decision, store, settings)
    except Stale as error:
        return Outcome(decision=decision, applied=False, detail=str(error))
    except BrokerUnreachable:
        raise
    except (BrokerError, MessageError) as error:
        # Of this one: a list that is no list must not hold up what concerns others.
        log.error("%s cannot be carried out: %s", decision, error)
        return Outcome(decision=decision, applied=False, detail=str(error))
    return Outcome(decision=decision, applied=True, detail=detail)


def apply_all(
    decisions: Iterable[Decision], store: FleetStore, settings: Settings
) -> list[Outcome]:
    """Carry out decisions in their order."""
    return [apply(decision, store, settings) for decision in decisions]
