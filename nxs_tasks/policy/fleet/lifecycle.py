"""What becomes of every instance: the evidence that drives the table of `transitions`.

The store's evidence drives most of it: heartbeats, the connections that the broker counts, how
tasks go there (`Load.unhealthy`), whether it takes work (`Load.consuming`). The worker's own
process drives the rest: it announces itself (JOINED, REPLACED), wakes up in time (JOINED from
ZOMBIE), finds that it fails where others do not (UNHEALTHY) and says that it shuts down (SHUTDOWN).

Before anybody is judged the observer is (`observation`), and who was lost too often is withheld
(`flapping`).

A ZOMBIE still may commit what it runs: as long as nobody has been given its messages, there is one
execution of each. They are given to others when it is GONE, and from that moment its tokens count
no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from nxs_tasks.model.decision import (
    Decision,
    Evidence,
    Forget,
    Nothing,
    Release,
    Transition,
    Withhold,
)
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, Event, State
from nxs_tasks.policy.fleet.flapping import Room, judge
from nxs_tasks.policy.fleet.joining import joining, refused_s
from nxs_tasks.policy.fleet.observation import Observation, observe, silence
from nxs_tasks.policy.fleet.transitions import is_loss, next_state
from nxs_tasks.settings import Settings


def evaluate(snapshot: Snapshot, settings: Settings, now: float) -> list[Decision]:
    """One decision or more for each instance; `now` is the server's time, s."""
    return list(_Look(snapshot, settings, observe(snapshot, settings, now)).decide())


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the fleet."""

    snapshot: Snapshot
    settings: Settings
    observation: Observation

    def decide(self) -> Iterator[Decision]:
        """For all, in their order."""
        room = Room(self.snapshot, self.settings, self.observation.now)
        for instance in self.snapshot.instances:
            withhold = judge(instance, self.settings, self.observation.now, room=room.has(instance))
            if withhold is None:
                yield from self._decide(instance)
                continue
            if withhold.until:
                room.take(instance)
            yield withhold
            yield from self._decide(_withheld(instance, withhold))

    def _decide(self, instance: Instance) -> list[Decision]:
        settings, seen = self.settings, self._evidence(instance)
        silent_s = seen["silent_s"]
        patience = self.observation.patience
        if instance.state in ENDED:
            return self._after_the_end(instance, seen)
        if silent_s > settings.gone_after * patience and self.observation.suspect:
            return [_nothing(instance, self.observation.suspect, seen)]
        # Unknown connections (None) are no witness: only a counted zero is.
        if instance.connections == 0 and silent_s > settings.gone_after * patience:
            reason = (
                f"no heartbeat for {silent_s:.0f} s and the broker shows no connection of its "
                "process"
            )
            return self._end(instance, Event.SILENT_CLOSED, reason, seen)
        if instance.state is State.ZOMBIE:
            return self._zombie(instance, seen)
        if silent_s > settings.zombie_after * patience:
            return self._end(instance, Event.SILENT_CONNECTED, _silent(instance, silent_s), seen)
        if instance.state is State.JOINING:
            event, reason = joining(instance, silent_s, self.observation, settings)
            return [self._answer(instance, event, reason, seen)]
        if instance.state is State.LEAVING:
            return self._leaving(instance, seen)
        return self._at_work(instance, seen)

    # the states

    def _at_work(self, instance: Instance, seen: Evidence) -> list[Decision]:
        settings = self.settings
        fresh = seen["silent_s"] <= settings.longest_gap
        if instance.cordoned:
            # What waits for it is moved by `cordon.clear_cordoned`.
            return [self._answer(instance, None, f"cordoned {instance.cordoned}", seen)]
        if instance.load.consuming is False and fresh:
            return self._deaf(instance, seen)
        if instance.state is State.DEGRADED:
            return self._degraded(instance, seen)
        if instance.sick >= settings.degraded_beats and fresh:
            reason = f"unhealthy in {instance.sick} heartbeats: {instance.load.unhealthy}"
            return [_move(instance, Event.UNHEALTHY, reason, seen)]
        return [self._answer(instance, None, "healthy heartbeats", seen)]

    def _deaf(self, instance: Instance, seen: Evidence) -> list[Decision]:
        for_s = instance.deaf * self.settings.heartbeat_period
        reason = f"heartbeats are there, but its consumer takes no work for {for_s:.0f} s"
        if instance.deaf >= self.settings.deaf_beats:
            return self._end(instance, Event.DEAF, reason, seen)
        return [
            *self._release(instance, seen),
            _nothing(instance, f"{reason}: gets no new work", seen),
        ]

    def _degraded(self, instance: Instance, seen: Evidence) -> list[Decision]:
        settings, now = self.settings, self.observation.now
        left = instance.ejected_until - now
        if left > 0:
            reason = f"ejected for {left:.0f} s more: {instance.ejected_why}"
            return [*self._release(instance, seen), _nothing(instance, reason, seen)]
        wanted = settings.recover_beats
        # Since an ejection ended, which it says of itself, heartbeats count from there.
        since = int(-left // settings.heartbeat_period) if instance.ejected_until else wanted
        well = min(instance.well, since)
        if instance.load.unhealthy:
            return [self._answer(instance, None, f"unhealthy: {instance.load.unhealthy}", seen)]
        if well < wanted or seen["silent_s"] > settings.longest_gap:
            reason = f"{well} of {wanted} healthy heartbeats until it is ACTIVE"
            return [self._answer(instance, None, reason, seen)]
        return [_move(instance, Event.RECOVERED, f"{wanted} healthy heartbeats", seen)]

    def _zombie(self, instance: Instance, seen: Evidence) -> list[Decision]:
        settings, silent_s = self.settings, seen["silent_s"]
        reason, for_s = _silent(instance, silent_s), silent_s
        if silent_s <= settings.longest_gap:
            for_s = instance.deaf * settings.heartbeat_period
            reason = f"heartbeats are there, but its consumer takes no work for {for_s:.0f} s"
            if not instance.deaf:
                reason = "takes work again, and will announce itself"
        # What the broker cannot say is no second witness: it stays a ZOMBIE.
        if for_s > settings.evict_after * self.observation.patience and (
            instance.connections is not None
        ):
            return self._end(instance, Event.TERMINATED, reason, seen)
        return [*self._release(instance, seen), _nothing(instance, reason, seen)]

    def _leaving(self, instance: Instance, seen: Evidence) -> list[Decision]:
        release = self._release(instance, seen)
        if not instance.stopped:
            reason = f"shutting down, still holds {_or_unknown(instance.inflight)} task(s)"
            return [*release, _nothing(instance, reason, seen)]
        if instance.inflight is None or instance.queued is None:
            return [*release, _nothing(instance, "stopped, what it holds is unknown", seen)]
        if instance.inflight:
            reason = f"stopped, and {instance.inflight} held message(s) are not yet given back"
            return [*release, _nothing(instance, reason, seen)]
        # What may not go elsewhere stays in its queue for who comes back under its name.
        waiting = (
            f"{instance.queued} wait in its queue" if instance.queued else "its queue is empty"
        )
        reason = f"its process has stopped, nothing is held, {waiting}"
        return [*release, _move(instance, Event.DRAINED, reason, seen)]

    def _after_the_end(self, instance: Instance, seen: Evidence) -> list[Decision]:
        settings, now = self.settings, self.observation.now
        release = self._release(instance, seen)
        if release:
            reason = f"{instance.queued} task(s) wait in its queue for who knows them"
            return [*release, _nothing(instance, reason, seen)]
        nothing_left = instance.inflight == 0 and instance.queued == 0  # unknown is not zero
        if instance.cordoned and nothing_left:
            reason = f"is {instance.state}, and stays known: cordoned {instance.cordoned}"
            return [_nothing(instance, reason, seen)]
        if now - instance.since > settings.gone_kept and nothing_left:
            reason = f"{instance.state} for more than {settings.gone_kept:.0f} s"
            return [
                Forget(
                    instance=instance.id,
                    epoch=instance.epoch,
                    source=instance.state,
                    reason=reason,
                    evidence=seen,
                )
            ]
        held = f", still named as holder of {instance.inflight}" if instance.inflight else ""
        refused = refused_s(instance, settings, now) if instance.state is State.FAILED else 0.0
        later = f", may join again in {refused:.0f} s" if refused else ""
        return [_nothing(instance, f"is {instance.state}{held}{later}", seen)]

    # pieces

    def _evidence(self, instance: Instance) -> dict[str, Any]:
        return {
            "silent_s": round(silence(instance, self.snapshot, self.observation), 1),
            "beats": instance.beats,
            "connections": instance.connections,
            "held": instance.inflight,
            "queued": instance.queued,
        }

    def _answer(
        self, instance: Instance, event: Event | None, reason: str, seen: Evidence
    ) -> Decision:
        if event is not None:
            return _move(instance, event, reason, seen)
        if seen["silent_s"] > self.settings.silent_after:
            connected = _connected(instance.connections)
            reason = f"silent for {seen['silent_s']:.0f} s, {connected}: gets no new work"
        return _nothing(instance, reason, seen)

    def _end(self, instance: Instance, event: Event, reason: str, seen: Evidence) -> list[Decision]:
        """A transition after which it is given nothing more; what waits for it goes to others."""
        move = _move(instance, event, reason, seen)
        return [move, *self._release(replace(instance, state=move.target), seen)]

    def _release(self, instance: Instance, seen: Evidence) -> list[Decision]:
        if not instance.queued:
            return []
        shared = instance.profile and instance.profile.shared
        return [
            Release(
                instance=instance.id,
                epoch=instance.epoch,
                source=instance.state,
                # Of its app, not of the app whose control worker happens to run this.
                target=shared or self.snapshot.shared_queue,
                reason=f"{instance.queued} task(s) wait for an instance that takes none",
                evidence=seen,
            )
        ]


def _withheld(instance: Instance, withhold: Withhold) -> Instance:
    flapping = replace(instance.flapping, until=withhold.until, why=withhold.reason)
    return replace(instance, flapping=flapping)


def _silent(instance: Instance, silent_s: float) -> str:
    return f"no heartbeat for {silent_s:.0f} s, {_connected(instance.connections)}"


def _connected(connections: int | None) -> str:
    if connections is None:
        return "the broker cannot say whether it is connected"
    return f"still {connections} connection(s)" if connections else "no connection left"


def _move(instance: Instance, event: Event, reason: str, seen: Evidence) -> Transition:
    return Transition(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        target=next_state(instance.state, event),
        event=event,
        loss=is_loss(instance.state, event),
        reason=reason,
        evidence=seen,
    )


def _nothing(instance: Instance, reason: str, seen: Evidence) -> Nothing:
    return Nothing(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        reason=reason,
        evidence=seen,
    )


def _or_unknown(value: int | None) -> str:
    return "an unknown number of" if value is None else str(value)
