"""Whether the observer can be believed: how long an instance is silent, and who is to blame.

All times are the server's. Silence counts from the start of the server and from the start of an
unbroken observation, so that after an outage all get one full time-out anew. An observer that comes
late is patient in proportion (Lifeguard's local health, to at most 8 times). And where most of the
fleet is silent at once, it is the observer that is suspected, or what lies between: nobody is lost
by that (Kubernetes stops its evictions at the same 55 %). Who has no connection left counts with
the first heartbeat that is missed: heartbeats come at different moments, so some of a crowd are
overdue before the others. When the crowd is heard again, it is so one by one: from the first look
that is believed again (`Snapshot.believed_since`) all get a full new time-out. `mass_hold` limits
all this, because a majority can really be lost, and what it runs must go on some time.
"""

from __future__ import annotations

from dataclasses import dataclass

from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.settings import Settings

#: Most times a time-out (Lifeguard's local health multiplier).
MOST_PATIENT = 8.0
#: So few are no crowd: the end of two of two instances is believed.
CROWD = 3


@dataclass(frozen=True, slots=True)
class Observation:
    """How an observer sees. Time-outs count `patience` times, and none from before `since`."""

    now: float  # server time, s
    since: float  # server time, s: from when on what was seen is believed
    patience: float
    suspect: str  # why what it sees proves nothing; "" = it does


def silence(instance: Instance, snapshot: Snapshot, observation: Observation) -> float:
    """For how long nothing was heard of an instance, though it could have been, s."""
    heard = _heard(instance, snapshot)
    if not observation.suspect:
        heard = max(heard, observation.since)
    return max(0.0, observation.now - heard)


def observe(snapshot: Snapshot, settings: Settings, now: float) -> Observation:
    """Judge the observer itself."""
    late = max(0.0, snapshot.late_s / settings.lifecycle_period)
    patience = min(MOST_PATIENT, 1.0 + late)
    starts = (snapshot.server_started_at, snapshot.observed_since, snapshot.believed_since)
    since = max(start or 0.0 for start in starts)
    return Observation(now, since, patience, _suspicion(snapshot, settings, now, patience))


def _suspicion(snapshot: Snapshot, settings: Settings, now: float, patience: float) -> str:
    expected = [i for i in snapshot.instances if _is_expected(i)]
    silent = sorted(
        heard
        for instance in expected
        for heard in (_heard(instance, snapshot),)
        if now - heard > _overdue_s(instance, settings, patience)
    )
    if len(silent) < CROWD or len(silent) <= settings.mass_silence * len(expected):
        return ""
    # Who made the crowd, counted from the one that was silent first.
    needed = max(CROWD, int(settings.mass_silence * len(expected)) + 1)
    lasted = now - silent[needed - 1]
    if lasted > settings.mass_hold:
        return ""
    return (
        f"{len(silent)} of {len(expected)} instances are silent at once since {lasted:.0f} s: "
        "the observer is suspected, and nobody is given up"
    )


def _overdue_s(instance: Instance, settings: Settings, patience: float) -> float:
    """The silence with which an instance makes one of a crowd, s."""
    closed = instance.connections == 0
    return settings.heartbeat_period if closed else settings.gone_after * patience


def _is_expected(instance: Instance) -> bool:
    return instance.state not in ENDED and instance.state is not State.LEAVING


def _heard(instance: Instance, snapshot: Snapshot) -> float:
    last = instance.beat_at if instance.beat_at is not None else instance.since
    return max(last, snapshot.server_started_at or last, snapshot.observed_since or last)
