"""What becomes of an instance that is JOINING: spec 2.2 and 2.4.

`join_beats` consecutive heartbeats of a process that consumes make it ACTIVE. After `join_grace`
without that it is FAILED, and may not join again for `join_refused`. Whoever tells of its progress
(a model that is being loaded) gets a new grace with each, up to `join_most`. The time for which it
is withheld is not its own.
"""

from __future__ import annotations

from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import Event
from nxs_tasks.policy.fleet.flapping import withheld_s
from nxs_tasks.policy.fleet.observation import Observation
from nxs_tasks.settings import Settings


def joining(
    instance: Instance, silent_s: float, observation: Observation, settings: Settings
) -> tuple[Event | None, str]:
    """What happens to it, None for nothing, and why."""
    withheld = withheld_s(instance, observation.now)
    if withheld:
        return None, f"withheld for {withheld:.0f} s more: {instance.flapping.why}"
    lacks = _lacks(instance, silent_s, settings)
    if not lacks:
        known = "consuming" if instance.load.consuming else "whether it consumes is unknown"
        return Event.CONFIRMED, f"{instance.beats} consecutive heartbeats, {known}"
    begun = max(instance.since, instance.flapping.until, observation.since)
    moved = max(begun, instance.progress_at or begun)
    took, still = observation.now - begun, observation.now - moved
    too_late = max(still - settings.join_grace * observation.patience, took - settings.join_most)
    if too_late <= 0 or observation.suspect:
        return None, f"{lacks}{_progress(instance, still)}"
    return Event.JOIN_TIMED_OUT, f"JOINING for {took:.0f} s: {lacks}{_progress(instance, still)}"


def refused_s(instance: Instance, settings: Settings, now: float) -> float:
    """For how much longer a FAILED instance may not join, s."""
    return max(0.0, instance.since + settings.join_refused - now)


def _lacks(instance: Instance, silent_s: float, settings: Settings) -> str:
    if instance.load.progress:
        return f"not ready yet: {instance.load.progress}"
    if instance.beats < settings.join_beats:
        return f"{instance.beats} of {settings.join_beats} consecutive heartbeats"
    if silent_s > settings.longest_gap:
        return f"{instance.beats} heartbeats, but none for {silent_s:.0f} s"
    if instance.load.consuming is False:
        return "heartbeats are there, but it does not consume"
    return ""


def _progress(instance: Instance, still_s: float) -> str:
    return f", the same for {still_s:.0f} s" if instance.load.progress and still_s > 1 else ""
