"""The steps by which a silent zombie is evicted; their order is in `control.workflows`.

Each looks first whether it still is the same ZOMBIE, and whether the state machine would end it;
"it is alive again" is recorded, and ends the story. Each may be done twice. If the story is lost on
its way, the lifecycle job ends the zombie all the same, somewhat later.

A ZOMBIE that sends heartbeats and is deaf is not evicted here: it looks after itself, and ends
itself if nothing helps (`worker.healing`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from nxs_tasks.control.effects import apply
from nxs_tasks.control.observing import look
from nxs_tasks.control.workflows import evict_zombie
from nxs_tasks.errors import NxsError, Stale
from nxs_tasks.model.decision import Outcome, Release, Rescue, Transition
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.eviction import ending, spared
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.runtime import ASK_TO_END, Runtime
from nxs_tasks.store.orphaned import free_locks

log = logging.getLogger(__name__)

#: What its records are called among the transitions.
EVICTION = "eviction"
#: After `evict_after` is over, s: not in the very moment.
MARGIN_S = 0.2


def start_evictions(runtime: Runtime, outcomes: Iterable[Outcome]) -> list[str]:
    """Begin the story of each instance that has just become a silent ZOMBIE; their ids."""
    begun = []
    settings = runtime.settings
    for outcome in outcomes:
        move = outcome.decision
        if not (outcome.applied and isinstance(move, Transition)):
            continue
        if move.target is not State.ZOMBIE or move.event is not Event.SILENT_CONNECTED:
            continue
        silent = float(move.evidence.get("silent_s") or settings.zombie_after)
        grace = max(0.0, settings.evict_after - silent) + MARGIN_S
        story = evict_zombie(runtime.app, move.instance, move.epoch, grace, settings.evict_after)
        try:
            story.apply_async()
        except NxsError as error:
            log.warning("%s is evicted by the lifecycle job alone: %s", move.instance, error)
        else:
            begun.append(move.instance)
    return begun


def ask(runtime: Runtime, instance: str, epoch: int) -> bool:
    """Have the worker asked to end. A frozen one does not hear it; one that wakes is alive."""
    _, mine = _look(runtime, instance)
    if _is_spared(runtime, instance, epoch, mine):
        return False
    runtime.app.control.broadcast(
        ASK_TO_END, arguments={"epoch": epoch}, destination=[instance], reply=False
    )
    return _record(runtime, instance, epoch, "asked to end, by a message to its remote control", {})


def cut(runtime: Runtime, instance: str, epoch: int) -> bool:
    """Close every connection of its process, if the state machine would end it now."""
    snapshot, mine = _look(runtime, instance)
    if mine is not None and (mine.epoch, mine.state) == (epoch, State.GONE):
        return _close_the_rest(runtime, instance, epoch)
    if _is_spared(runtime, instance, epoch, mine):
        return False
    end_now, why_not = ending(instance, evaluate(snapshot, runtime.settings, snapshot.taken_at))
    if end_now is None:
        what = f"not evicted now, left to the lifecycle: {why_not}"
        _record(runtime, instance, epoch, what, {})
        return False
    closed = runtime.store().disconnect(instance, epoch)
    told = "an unknown number of" if closed is None else str(closed)
    what = f"has not answered: {told} connection(s) of its process closed"
    return _record(runtime, instance, epoch, what, {"connections": closed})


def _close_the_rest(runtime: Runtime, instance: str, epoch: int) -> bool:
    """The lifecycle job was faster; or it has ended as it was asked to."""
    closed = runtime.store().disconnect(instance, epoch)
    if not closed:
        what = f"not evicted (epoch {epoch}): it is GONE already"
        _record(runtime, instance, epoch, what, {})
        return False
    what = f"is GONE: {closed} connection(s) of its process closed"
    return _record(runtime, instance, epoch, what, {"connections": closed})


def end(runtime: Runtime, instance: str, epoch: int) -> bool:
    """GONE; what it held goes to others, and the locks of its process are free."""
    store = runtime.store()
    snapshot, mine = _look(runtime, instance)
    if mine is None or mine.epoch != epoch or mine.state not in (State.ZOMBIE, State.GONE):
        return not _is_spared(runtime, instance, epoch, mine)
    if mine.state is State.ZOMBIE:
        wanted, _ = ending(instance, evaluate(snapshot, runtime.settings, snapshot.taken_at))
        if wanted is None or not apply(_evicted(wanted), store, runtime.settings).applied:
            # It woke in the moment that its connections were closed.
            return not _is_spared(runtime, instance, epoch, _look(runtime, instance)[1])
    rescued, released = (apply(d, store, runtime.settings) for d in _back(runtime, mine))
    freed = free_locks(store, mine.identity)
    what = f"what it held: {rescued.detail}; what waited for it: {released.detail}"
    locks = f"; lock(s) freed: {', '.join(freed)}" if freed else ""
    return _record(runtime, instance, epoch, what + locks, {"locks": len(freed)})


#: Each returns whether the story goes on; raises `BrokerError`.
STEPS: Mapping[str, Callable[[Runtime, str, int], bool]] = {"ask": ask, "cut": cut, "end": end}


def _look(runtime: Runtime, instance: str) -> tuple[Snapshot, Instance | None]:
    snapshot = look(runtime, between=True)
    return snapshot, snapshot.get(instance)


def _is_spared(runtime: Runtime, instance: str, epoch: int, mine: Instance | None) -> bool:
    why = spared(mine, epoch, runtime.settings, runtime.store().now())
    if why:
        known = epoch if mine is None else mine.epoch
        _record(runtime, instance, known, f"not evicted (epoch {epoch}): {why}", {})
    return bool(why)


def _evicted(move: Transition) -> Transition:
    # Its connections are closed because we have closed them.
    return replace(move, event=Event.TERMINATED, reason=f"evicted: {move.reason}")


def _back(runtime: Runtime, mine: Instance) -> tuple[Rescue, Release]:
    why = "its process was evicted"
    target = (mine.profile and mine.profile.shared) or runtime.shared_queue
    return (
        Rescue(instance=mine.id, epoch=mine.epoch, held=mine.inflight or 0, reason=why),
        Release(instance=mine.id, epoch=mine.epoch, source=State.GONE, target=target, reason=why),
    )


def _record(
    runtime: Runtime, instance: str, epoch: int, what: str, evidence: Mapping[str, Any]
) -> bool:
    log.warning("%s (epoch %d): %s", instance, epoch, what)
    try:
        runtime.store().remark(instance, epoch, EVICTION, what, evidence)
    except Stale as error:
        log.warning("that is not recorded, its name is another's by now: %s", error)
    return True
