"""Whether a zombie that fell silent is to be evicted further, asked before each step of that."""

from __future__ import annotations

from collections.abc import Sequence

from nxs_tasks.model.decision import Decision, Transition
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.settings import Settings


def spared(instance: Instance | None, epoch: int, settings: Settings, now: float) -> str:
    """Why nothing is to be done to a process that was a silent ZOMBIE; "" if something is.

    `now` is the server's time, s.
    """
    if instance is None:
        return "there is no record of it any more"
    if instance.epoch != epoch:
        return f"its name belongs to a process with epoch {instance.epoch}"
    if instance.state is State.GONE:
        return "it is GONE already"
    if instance.state is not State.ZOMBIE:
        return f"it is alive again, {instance.state}"
    if instance.beat_at is not None and now - instance.beat_at <= settings.longest_gap:
        return f"it is alive again, its last heartbeat came {now - instance.beat_at:.0f} s ago"
    return ""


def ending(instance: str, decisions: Sequence[Decision]) -> tuple[Transition | None, str]:
    """What the state machine would do with it now: its end, or why not yet."""
    for decision in decisions:
        if getattr(decision, "instance", "") != instance:
            continue
        if isinstance(decision, Transition) and decision.target is State.GONE:
            return decision, ""
    reasons = [d.reason for d in decisions if getattr(d, "instance", "") == instance]
    return None, reasons[-1] if reasons else "nothing is known of it"
