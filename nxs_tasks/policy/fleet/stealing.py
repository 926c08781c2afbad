"""Whose waiting tasks an idle instance takes: the longest line of those that wait in vain.

Nothing is moved and nothing that runs is touched: the thief looks into the other's own queue after
its own ones, and takes what waits there one by one, as from a shared queue, for as long as it has
nothing else to do. What it takes counts as held by it at once.
"""

from __future__ import annotations

from nxs_tasks.model.decision import Nothing, Steal
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.readiness import unready
from nxs_tasks.settings import Settings

#: So many of the longest lines are looked at.
LONGEST = 16


def steal(thief: Instance, lines: Snapshot, settings: Settings) -> Steal | Nothing:
    """What an instance without work does; `lines` has those with the longest own queues."""
    why_not = "" if thief.state is State.ACTIVE else f"is {thief.state}"
    why_not = why_not or unready(thief, lines, settings)
    if why_not or thief.profile is None:
        return _nothing(thief, f"takes nothing from others: {why_not or 'its tasks are unknown'}")
    mine = thief.profile.tasks
    best: tuple[int, str, Instance] | None = None
    for line in lines.instances:
        waits, theirs = line.queued or 0, line.profile
        if line.id == thief.id or waits <= 0 or not _cannot_start(line, lines, settings):
            continue
        if theirs is not None and not (mine & theirs.tasks):
            continue
        if best is None or (-waits, line.id) < best[:2]:
            best = (-waits, line.id, line)
    if best is None:
        return _nothing(thief, "nothing waits that its own instance could not start")
    victim = best[2]
    same = victim.profile is not None and victim.profile.tasks <= mine
    return Steal(
        instance=thief.id,
        epoch=thief.epoch,
        source=thief.state,
        victim=victim.id,
        names=None if same else mine,
        reason=f"is idle, and {victim.queued} task(s) wait for {victim.id}",
        evidence={"waiting": victim.queued, "held": victim.held, "slots": victim.load.slots},
    )


def _cannot_start(line: Instance, lines: Snapshot, settings: Settings) -> bool:
    """Whether what waits for an instance would wait on; what it is about to take stays its own."""
    if unready(line, lines, settings):
        return True
    slots, held = line.load.slots, line.held
    return slots is None or held is None or held >= slots


def _nothing(thief: Instance, reason: str) -> Nothing:
    return Nothing(instance=thief.id, epoch=thief.epoch, source=thief.state, reason=reason)
