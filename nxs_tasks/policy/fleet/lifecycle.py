"""The state machine of an instance: one table, and the evidence that drives it.

`TRANSITIONS` holds every transition of spec 2.2, and what a fleet needs beside it: an instance
whose process is really gone leaves from any state, and a name may be taken again. A pair that is
not in the table is refused by `next_state`. `docs/states.md` is made from this table.

`evaluate` drives the part of the table that the store's evidence decides today: JOINING → ACTIVE,
LEAVING → GONE, GONE on silence with no connection left, and ZOMBIE → GONE on silence with
connections. The worker's own process drives the rest: it announces itself (JOINED, REPLACED), wakes
up in time (JOINED from ZOMBIE) and says that it shuts down (SHUTDOWN). The events of DEGRADED and
FAILED are in the table and nothing raises them yet.

A ZOMBIE still may commit what it runs: as long as nobody has been given its messages, there is one
execution of each. They are given to others when it is GONE, and from that moment its tokens count
no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Decision, Evidence, Forget, Nothing, Release, Transition
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, Event, State
from nxs_tasks.settings import Settings

_GONE_FROM_ANY = {
    (state, event): State.GONE
    for state in State
    if state not in ENDED
    for event in (Event.SILENT_CLOSED, Event.REPLACED)
}

TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.JOINING, Event.CONFIRMED): State.ACTIVE,
        (State.JOINING, Event.JOIN_TIMED_OUT): State.FAILED,
        (State.JOINING, Event.SHUTDOWN): State.LEAVING,
        (State.JOINING, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.ACTIVE, Event.UNHEALTHY): State.DEGRADED,
        (State.ACTIVE, Event.SHUTDOWN): State.LEAVING,
        (State.ACTIVE, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.DEGRADED, Event.RECOVERED): State.ACTIVE,
        (State.DEGRADED, Event.SHUTDOWN): State.LEAVING,
        (State.DEGRADED, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.LEAVING, Event.DRAINED): State.GONE,
        (State.LEAVING, Event.SILENT_CONNECTED): State.ZOMBIE,
        (State.ZOMBIE, Event.JOINED): State.JOINING,
        (State.ZOMBIE, Event.TERMINATED): State.GONE,
        **_GONE_FROM_ANY,
        (State.GONE, Event.JOINED): State.JOINING,
        (State.FAILED, Event.JOINED): State.JOINING,
    }
)


class InvalidTransition(NxsError):
    """The table has no such transition."""


def next_state(state: State, event: Event) -> State:
    """The state after `event`. Raises `InvalidTransition` for a pair that is not in the table."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        known = ", ".join(e.name for s, e in TRANSITIONS if s is state)
        raise InvalidTransition(
            f"{state} has no transition on {event.name} ({event}); it has: {known}"
        ) from None


def evaluate(snapshot: Snapshot, settings: Settings, now: float) -> list[Decision]:
    """One decision or more for each instance; `now` is the server's time, s."""
    return [d for i in snapshot.instances for d in _decide(i, snapshot, settings, now)]


def _decide(
    instance: Instance, snapshot: Snapshot, settings: Settings, now: float
) -> list[Decision]:
    evidence: Evidence = _evidence(instance, snapshot, now)
    if instance.state in ENDED:
        return _after_the_end(instance, snapshot, settings, now, evidence)
    if _is_gone(instance, evidence, settings):
        reason = (
            f"no heartbeat for {evidence['silent_s']:.0f} s and the broker shows no connection "
            "of its process"
        )
        return _end(instance, Event.SILENT_CLOSED, reason, snapshot, evidence)
    if instance.state is State.ZOMBIE:
        return _zombie(instance, snapshot, settings, evidence)
    if evidence["silent_s"] > settings.zombie_after:
        return _end(instance, Event.SILENT_CONNECTED, _silence(evidence), snapshot, evidence)
    if instance.state is State.JOINING:
        return [_joining(instance, settings, evidence)]
    if instance.state is State.LEAVING:
        return _leaving(instance, snapshot, evidence)
    if instance.load.consuming is False and evidence["silent_s"] <= settings.longest_gap:
        reason = "heartbeats are there, but its consumer takes no work: gets no new work"
        release = _release(instance, snapshot, evidence)
        return [*release, _nothing_plain(instance, reason, evidence)]
    if instance.state is State.DEGRADED and instance.ejected_until:
        return _ejected(instance, snapshot, settings, now, evidence)
    return [_nothing(instance, "healthy heartbeats", evidence, settings)]


def _ejected(
    instance: Instance, snapshot: Snapshot, settings: Settings, now: float, evidence: Evidence
) -> list[Decision]:
    """It has ejected itself (`worker.ejecting`), and comes back by itself."""
    back_for = now - instance.ejected_until
    if back_for < 0:
        reason = f"ejected for {-back_for:.0f} s more: {instance.ejected_why}"
        return [*_release(instance, snapshot, evidence), _nothing_plain(instance, reason, evidence)]
    wanted = settings.recover_beats * settings.heartbeat_period
    if back_for < wanted or evidence["silent_s"] > settings.longest_gap:
        reason = f"takes work again since {back_for:.0f} s, ACTIVE after {wanted:.0f} s"
        return [_nothing_plain(instance, reason, evidence)]
    reason = f"took work for {back_for:.0f} s and was not ejected again"
    return [_move(instance, Event.RECOVERED, reason, evidence)]


def _evidence(instance: Instance, snapshot: Snapshot, now: float) -> dict[str, float | int | None]:
    # A restarted server has closed everybody's connections, and an observer that was away has seen
    # nothing: silence counts from the start of either, so that all get one full time-out anew.
    last = instance.beat_at if instance.beat_at is not None else instance.since
    heard = max(last, snapshot.server_started_at or last, snapshot.observed_since or last)
    return {
        "silent_s": round(max(0.0, now - heard), 1),
        "beats": instance.beats,
        "connections": instance.connections,
        "held": instance.inflight,
        "queued": instance.queued,
    }


def _is_gone(instance: Instance, evidence: Evidence, settings: Settings) -> bool:
    # Unknown connections (None) are no witness: only a counted zero is.
    return bool(instance.connections == 0 and evidence["silent_s"] > settings.gone_after)


def _end(
    instance: Instance, event: Event, reason: str, snapshot: Snapshot, evidence: Evidence
) -> list[Decision]:
    """A transition after which it is given nothing more; what waits for it goes to others."""
    move = _move(instance, event, reason, evidence)
    release = _release(replace(instance, state=move.target), snapshot, evidence)
    return [move, *release]


def _zombie(
    instance: Instance, snapshot: Snapshot, settings: Settings, evidence: Evidence
) -> list[Decision]:
    reason = _silence(evidence)
    # What the broker cannot say is no second witness: it stays a ZOMBIE.
    if evidence["silent_s"] > settings.evict_after and instance.connections is not None:
        return _end(instance, Event.TERMINATED, reason, snapshot, evidence)
    release = _release(instance, snapshot, evidence)
    return [*release, _nothing_plain(instance, reason, evidence)]


def _silence(evidence: Evidence) -> str:
    return f"no heartbeat for {evidence['silent_s']:.0f} s, {_connected(evidence['connections'])}"


def _connected(connections: int | None) -> str:
    if connections is None:
        return "the broker cannot say whether it is connected"
    return f"still {connections} connection(s)" if connections else "no connection left"


def _joining(instance: Instance, settings: Settings, evidence: Evidence) -> Decision:
    if instance.beats < settings.join_beats:
        reason = f"{instance.beats} of {settings.join_beats} consecutive heartbeats"
        return _nothing(instance, reason, evidence, settings)
    if evidence["silent_s"] > settings.longest_gap:
        reason = f"{instance.beats} heartbeats, but none for {evidence['silent_s']:.0f} s"
        return _nothing(instance, reason, evidence, settings)
    if instance.load.consuming is False:
        reason = "heartbeats are there, but it does not consume"
        return _nothing(instance, reason, evidence, settings)
    known = "consuming" if instance.load.consuming else "whether it consumes is unknown"
    reason = f"{instance.beats} consecutive heartbeats, {known}"
    return _move(instance, Event.CONFIRMED, reason, evidence)


def _leaving(instance: Instance, snapshot: Snapshot, evidence: Evidence) -> list[Decision]:
    release = _release(instance, snapshot, evidence)
    if not instance.stopped:
        reason = f"shutting down, still holds {_or_unknown(instance.inflight)} task(s)"
        return [*release, _nothing_plain(instance, reason, evidence)]
    if instance.inflight is None or instance.queued is None:
        return [*release, _nothing_plain(instance, "stopped, what it holds is unknown", evidence)]
    if instance.inflight:
        reason = f"stopped, and {instance.inflight} held message(s) are not yet given back"
        return [*release, _nothing_plain(instance, reason, evidence)]
    # What may not go elsewhere stays in its queue for who comes back under its name.
    waiting = f"{instance.queued} wait in its queue" if instance.queued else "its queue is empty"
    reason = f"its process has stopped, nothing is held, {waiting}"
    return [*release, _move(instance, Event.DRAINED, reason, evidence)]


def _after_the_end(
    instance: Instance, snapshot: Snapshot, settings: Settings, now: float, evidence: Evidence
) -> list[Decision]:
    release = _release(instance, snapshot, evidence)
    if release:
        reason = f"{instance.queued} task(s) wait in its queue for who knows them"
        return [*release, _nothing_plain(instance, reason, evidence)]
    nothing_left = instance.inflight == 0 and instance.queued == 0  # unknown is not zero
    if instance.cordoned and nothing_left:
        reason = f"is {instance.state}, and stays known: cordoned {instance.cordoned}"
        return [_nothing_plain(instance, reason, evidence)]
    if now - instance.since > settings.gone_kept and nothing_left:
        return [
            Forget(
                instance=instance.id,
                epoch=instance.epoch,
                source=instance.state,
                reason=f"{instance.state} for more than {settings.gone_kept:.0f} s",
                evidence=evidence,
            )
        ]
    held = f", still named as holder of {instance.inflight}" if instance.inflight else ""
    return [_nothing_plain(instance, f"is {instance.state}{held}", evidence)]


def _release(instance: Instance, snapshot: Snapshot, evidence: Evidence) -> list[Decision]:
    if not instance.queued:
        return []
    return [
        Release(
            instance=instance.id,
            epoch=instance.epoch,
            source=instance.state,
            # Of its app, not of the app whose control worker happens to run this.
            target=(instance.profile and instance.profile.shared) or snapshot.shared_queue,
            reason=f"{instance.queued} task(s) wait in the queue of an instance that takes none",
            evidence=evidence,
        )
    ]


def _move(instance: Instance, event: Event, reason: str, evidence: Evidence) -> Transition:
    return Transition(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        target=next_state(instance.state, event),
        event=event,
        reason=reason,
        evidence=evidence,
    )


def _nothing(instance: Instance, reason: str, evidence: Evidence, settings: Settings) -> Decision:
    silent = evidence["silent_s"]
    if silent > settings.silent_after:
        seen = _connected(instance.connections)
        reason = f"silent for {silent:.0f} s, {seen}: gets no new work"
    return _nothing_plain(instance, reason, evidence)


def _nothing_plain(instance: Instance, reason: str, evidence: Evidence) -> Decision:
    return Nothing(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        reason=reason,
        evidence=evidence,
    )


def _or_unknown(value: int | None) -> str:
    return "an unknown number of" if value is None else str(value)
