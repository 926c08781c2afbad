"""An instance that is lost again and again is withheld for a while: spec 2.3.

Only unplanned losses of an instance that worked count (`transitions.is_loss`): a restart, a deploy
or a wave of load is none, and neither is what happens to most of the fleet at once. More than
`flap_losses` within `flap_window`, or one more after it was let in again: it is withheld for the
next of the back-offs (1, 5, 15 min), counted from the loss. It goes on sending heartbeats, stays
JOINING and gets no work; then it comes back with the ramp of any new instance. `flap_forgiven`
without a loss takes one step back.

No more than a fifth of the fleet is withheld, or one: beyond that the back-off is told and counted,
and not kept. Damping that takes away healthy capacity is what routing (RFC 7196) and Kubernetes
(KEP-4603) had to take back.
"""

from __future__ import annotations

from math import floor

from nxs_tasks.model.decision import Withhold
from nxs_tasks.model.instance import Flapping, Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED
from nxs_tasks.settings import Settings


def withheld_s(instance: Instance, now: float) -> float:
    """For how much longer an instance is withheld, s; 0 if it is not."""
    return max(0.0, instance.flapping.until - now)


def level(instance: Instance, settings: Settings, now: float) -> int:
    """How many back-offs count against it now."""
    known = instance.flapping
    return _against(known, max(known.losses, default=0.0), settings, now)


def _against(known: Flapping, last_loss: float, settings: Settings, now: float) -> int:
    steady_s = now - max(known.until, known.level_at, last_loss)
    return max(0, known.level - floor(max(0.0, steady_s) / settings.flap_forgiven))


def judge(instance: Instance, settings: Settings, now: float, *, room: bool) -> Withhold | None:
    """Withhold an instance for its last losses, or not; `room` = one more may be withheld.

    `now` is the server's time, s.
    """
    known = instance.flapping
    lately = [at for at in known.losses if now - at <= settings.flap_window]
    new = [at for at in lately if at > known.level_at]
    if not new:
        return None
    # With the loss itself nothing has been steady since: the level of just before it counts.
    before = max((at for at in known.losses if at < new[0]), default=0.0)
    against = _against(known, before, settings, new[0])
    if not against and len(lately) <= settings.flap_losses:
        return None
    offs = settings.back_offs
    step = min(against, len(offs) - 1)
    again = "again, " if against else ""
    reason = (
        f"lost {again}{len(lately)} time(s) in {settings.flap_window / 60:g} min and nobody had "
        f"planned it: back-off {step + 1} of {len(offs)}, {offs[step]:g} s"
    )
    if not room:
        reason += "; but so much of the fleet is withheld that it is let in"
    return Withhold(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        level=step + 1,
        level_before=known.level,
        loss_at=new[-1],
        until=new[-1] + offs[step] if room else 0.0,
        reason=reason,
        evidence={"losses": [round(at, 1) for at in lately], "room": room},
    )


class Room:
    """How many more of a fleet may be withheld."""

    def __init__(self, snapshot: Snapshot, settings: Settings, now: float) -> None:
        held = [i for i in snapshot.instances if withheld_s(i, now)]
        living = [i for i in snapshot.instances if i.state not in ENDED]
        fleet = len({i.id for i in (*held, *living)})
        self._left = max(1, floor(settings.withheld_most * fleet)) - len(held)
        self._held = {i.id for i in held}

    def has(self, instance: Instance) -> bool:
        """Whether this one may be withheld, or is."""
        return instance.id in self._held or self._left > 0

    def take(self, instance: Instance) -> None:
        """Count one that is withheld from now on."""
        if instance.id not in self._held:
            self._held.add(instance.id)
            self._left -= 1
