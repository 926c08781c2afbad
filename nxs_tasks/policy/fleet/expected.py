"""When a waiting task is expected to start, from how long tasks took lately.

Counted are the tasks that have to end before it starts:

    need = ahead in its queue + held by the takers + slots that it takes − slots of the takers

The *takers* take from its queue and can run it: of an own queue its instance, else all that consume
the queue. What waits in the takers' own queues is taken before anything of another queue and is
added. With mean_s of each taker as its last heartbeat tells (of one that tells none, the mean of
the others):

    about    = need ÷ Σ (slots ÷ mean_s)
    earliest = ⌊(need − 1) ÷ slots⌋ × shortest mean_s       what runs now is about to end
    latest   = ⌈(need + beside) ÷ slots⌉ × longest mean_s   what runs now has just begun

So if all slots are taken and all takers alike, about is (ahead + 1) × mean_s ÷ slots.
`beside` is what waits in other queues of the takers, and may be taken before it. Where an idle
instance may take it over from another one (`stealing`), it counts for the earliest time. A need of
0 or less is a start now.

This is what would be if all took as long as lately. It is not a promise: what comes later and is
more urgent, or wants a cache that is warm, is taken before it. Unknown is unknown, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.instance import SHORTEST_S, Instance
from nxs_tasks.model.why import Start, Whereabouts
from nxs_tasks.policy.fleet.placed import Placed
from nxs_tasks.policy.fleet.placement import has_memory
from nxs_tasks.policy.fleet.takers import Takers


@dataclass(frozen=True, slots=True)
class _Pool:
    """Some instances as one place where tasks end."""

    slots: int
    held: int
    lines: int  # what waits in their own queues
    means: tuple[float, ...]  # s, one for each
    rate: float  # tasks that end in a second

    def need(self, demand: Demand, ahead: int) -> int:
        """How many have to end before one starts that has so many before it."""
        return max(0, ahead + self.held + demand.slots - self.slots)

    def earliest(self, need: int) -> float:
        """Until so many have ended, s, if what runs now is about to end."""
        return floor((need - 1) / self.slots) * min(self.means) if need else 0.0

    def latest(self, need: int) -> float:
        """The same, if what runs now has just begun."""
        return ceil(need / self.slots) * max(self.means)


def expected(where: Whereabouts, demand: Demand, found: Takers) -> Start:
    """When a task starts that waits in a queue of which something is taken."""
    pool, soon = _pool(found.able), _pool((*found.able, *found.thieves))
    earliest = soon.earliest(soon.need(demand, where.ahead)) if soon is not None else None
    if pool is None:
        why = _why_unknown(found.able)
        if earliest is not None:
            why += f", but {found.thieves[0].id} is idle and may take it over"
        return Start(earliest_s=earliest, why=why)
    if not any(has_memory(i, demand, Placed()) for i in found.able):
        return Start(why="it waits for memory, and when that is free nobody can tell")
    # Its own queue is the line that it stands in.
    lines = 0 if where.own_of else pool.lines
    need = pool.need(demand, where.ahead + lines)
    beside = _beside(where, found.able)
    known = sum(i.load.mean_s is not None for i in found.able)
    why = f"{need} task(s) have to end first on {pool.slots} slot(s)"
    if known < len(found.able):
        why += f"; how long they take, {known} of {len(found.able)} instances tell"
    if found.thieves:
        why += f"; sooner if {found.thieves[0].id}, which is idle, takes it over"
    return Start(
        earliest_s=earliest,
        about_s=need / pool.rate,
        latest_s=pool.latest(need + beside),
        why=why,
    )


def _pool(instances: Iterable[Instance]) -> _Pool | None:
    """None if nobody takes, or nobody knows how long a task takes."""
    members = list(instances)
    known = [max(SHORTEST_S, m) for i in members if (m := i.load.mean_s) is not None]
    slots = sum(i.load.slots or 0 for i in members)
    if not known or not slots:
        return None
    usual = sum(known) / len(known)
    means = [usual if i.load.mean_s is None else max(SHORTEST_S, i.load.mean_s) for i in members]
    return _Pool(
        slots=slots,
        held=sum(i.held or 0 for i in members),
        lines=sum(i.queued or 0 for i in members),
        means=tuple(means),
        rate=sum((i.load.slots or 0) / m for i, m in zip(members, means, strict=True)),
    )


def _beside(where: Whereabouts, able: Iterable[Instance]) -> int:
    queues = {q for i in able if i.profile is not None for q in i.profile.queues}
    return sum(count for queue, count in where.beside.items() if queue in queues)


def _why_unknown(able: tuple[Instance, ...]) -> str:
    if not able:
        return "nobody takes it now"
    if not any(i.load.slots for i in able):
        return "how many slots there are is unknown"
    return "no task has ended there yet: how long one takes is unknown"
