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

#: So many of the longest lines are looked at, and so many are taken from at most.
LONGEST, VICTIMS = 16, 4
#: What every worker of Celery knows.
BUILT_IN = "celery."


def steal(thief: Instance, lines: Snapshot, settings: Settings) -> Steal | Nothing:
    """What an instance without work does; `lines` has those with the longest own queues."""
    why_not = "" if thief.state is State.ACTIVE else f"is {thief.state}"
    why_not = why_not or unready(thief, lines, settings)
    if why_not or thief.profile is None:
        return _nothing(thief, f"takes nothing from others: {why_not or 'its tasks are unknown'}")
    mine = thief.profile.tasks
    stuck = [
        line
        for line in lines.instances
        if line.id != thief.id
        and (line.queued or 0) > 0
        and _share_tasks(mine, line)
        and _cannot_start(line, lines, settings)
    ]
    # More than one, because nothing of the longest may be for this thief.
    chosen = sorted(stuck, key=lambda line: (-(line.queued or 0), line.id))[:VICTIMS]
    if not chosen:
        return _nothing(thief, "nothing waits that its own instance could not start")
    same = all(line.profile is not None and line.profile.tasks <= mine for line in chosen)
    first = chosen[0]
    return Steal(
        instance=thief.id,
        epoch=thief.epoch,
        source=thief.state,
        victims=tuple(line.id for line in chosen),
        names=None if same else mine,
        reason=f"is idle, and {first.queued} task(s) wait for {first.id}",
        evidence={"waiting": first.queued, "held": first.held, "slots": first.load.slots},
    )


def _share_tasks(mine: frozenset[str], line: Instance) -> bool:
    """Whether it may wait for something that the thief can run too; Celery's own tasks do not."""
    if line.profile is None:
        return True
    return any(not name.startswith(BUILT_IN) for name in mine & line.profile.tasks)


def _cannot_start(line: Instance, lines: Snapshot, settings: Settings) -> bool:
    """Whether what waits for an instance would wait on; what it is about to take stays its own."""
    if unready(line, lines, settings):
        return True
    slots, held = line.load.slots, line.held
    return slots is None or held is None or held >= slots


def _nothing(thief: Instance, reason: str) -> Nothing:
    return Nothing(instance=thief.id, epoch=thief.epoch, source=thief.state, reason=reason)
