"""What a worker does about its own consumer when that takes no work: one ladder, and who is spared.

A worker may be alive, send heartbeats and answer pings, and take no work: somebody has cancelled
its consumer, its connection is half-open, its event loop watches the wrong socket. It is the first
that can know, and the only one that can do something milder than ending it. So it judges itself,
at each heartbeat. The control plane sees the same evidence, and places nothing there meanwhile.

The ladder starts anew whenever the consumer was seen to take work, or had an excuse. It climbs one
rung at a time, and leaves out what cannot help.
"""

from __future__ import annotations

from nxs_tasks.model.decision import Heal, Nothing
from nxs_tasks.model.healing import Deaf, Remedy, Rung
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings

ORDER = tuple(Remedy)


def ladder(settings: Settings) -> tuple[Rung, ...]:
    """What is done after how long."""
    return tuple(map(Rung, settings.heals_after, ORDER))


def heal(instance: Instance, seen: Deaf, settings: Settings, now: float) -> Heal | Nothing:
    """What to do now about a consumer that takes no work; `now` is the server's time, s."""
    excuse = excused(instance, seen, now)
    if excuse:
        return _nothing(instance, f"its consumer takes no work, and need not: {excuse}", seen)
    tried = -1 if seen.last is None else ORDER.index(seen.last)
    for rung in ladder(settings)[tried + 1 :]:
        if not _can_help(rung.remedy, seen):
            continue
        if seen.for_s < rung.after_s:
            reason = f"{_told(seen)}; after {rung.after_s:g} s it {rung.remedy}"
            return _nothing(instance, reason, seen)
        return Heal(
            instance=instance.id,
            epoch=instance.epoch,
            source=instance.state,
            remedy=rung.remedy,
            reason=f"{_told(seen)}: it {rung.remedy}",
            evidence=_evidence(seen),
        )
    return _nothing(instance, f"{_told(seen)}, and nothing is left to try", seen)


def excused(instance: Instance, seen: Deaf, now: float) -> str:
    """Why it need not take work; "" if it should."""
    reasons = {
        "it has not been ACTIVE yet": not seen.served,
        f"it is {instance.state}": instance.state in (State.LEAVING, State.FAILED),
        "it looks whose fault some failures are": seen.suspended,
        "every slot is taken": seen.full,
    }
    found = (reason for reason, holds in reasons.items() if holds)
    return next(found, "") or kept_from_work(instance, seen, now)


def kept_from_work(instance: Instance, seen: Deaf, now: float) -> str:
    """Who has decided that it takes no work, and why; "" if nobody has."""
    reasons = {
        f"cordoned, {instance.cordoned}": bool(instance.cordoned),
        f"ejected, {instance.ejected_why}": instance.ejected_until > now,
        f"withheld, {instance.flapping.why}": instance.flapping.until > now,
        f"paused is {', '.join(sorted(seen.missing))}": bool(seen.missing)
        and seen.missing <= seen.paused,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _can_help(remedy: Remedy, seen: Deaf) -> bool:
    if remedy is Remedy.CONSUME:
        return bool(seen.missing - seen.paused)
    if remedy is Remedy.RESTART_POOL:
        return seen.pool_restarts
    return remedy is not Remedy.KILL or seen.told_to_end


def _told(seen: Deaf) -> str:
    missing = ", ".join(sorted(seen.missing - seen.paused))
    if missing:
        return f"for {seen.for_s:.0f} s its consumer does not consume {missing}"
    asked = "" if seen.asked_s is None else f" (last asked {seen.asked_s:.0f} s ago)"
    return f"for {seen.for_s:.0f} s its consumer takes no work{asked}"


def _evidence(seen: Deaf) -> dict[str, object]:
    return {
        "deaf_s": round(seen.for_s, 1),
        "asked_s": seen.asked_s,
        "missing": ", ".join(sorted(seen.missing)),
    }


def _nothing(instance: Instance, reason: str, seen: Deaf) -> Nothing:
    return Nothing(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        reason=reason,
        evidence=_evidence(seen),
    )
