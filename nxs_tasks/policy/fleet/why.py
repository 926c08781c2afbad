"""Why a task does not run: in one sentence, for each instance, and when it may start.

Pure, as every policy: whoever looks gives where the task was found (`control/whereabouts.py`) and
the fleet of that moment. The order of the questions is that of what is done: what a person wants
(`holds`), who takes from its queue at all, who can run it, who has room (`queued`).
"""

from __future__ import annotations

from nxs_tasks.model.demand import Demand
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.why import Start, Whereabouts, Why
from nxs_tasks.policy.fleet.expected import expected
from nxs_tasks.policy.fleet.holds import briefly, due_in, not_waiting, on_hold
from nxs_tasks.policy.fleet.not_there import not_there
from nxs_tasks.policy.fleet.placer import Placer
from nxs_tasks.policy.fleet.queued import in_own, in_queue, unmanned
from nxs_tasks.policy.fleet.takers import Case, takers
from nxs_tasks.settings import Settings


def demand_of(where: Whereabouts, snapshot: Snapshot, settings: Settings) -> Demand:
    """What a waiting task asks: by what the workers tell of its name, and its header's key."""
    traits = Placer(snapshot, settings).traits(where.task)
    return Demand(where.task, where.key, traits.io, traits.slots, traits.memory)


def why(where: Whereabouts, snapshot: Snapshot, settings: Settings, now: float) -> Why:
    """What is with a task; `now` is the server's time, s."""
    told = not_waiting(where, snapshot, now)
    if told:
        known = where.place != "nowhere" or bool(where.result)
        return Why(where=where, known=known, waits=False, sentence=told)
    demand = demand_of(where, snapshot, settings)
    found = takers(where, demand, snapshot, settings)
    case = Case(where, demand, snapshot, settings, now, found)
    hold = on_hold(case)
    sentence = hold or unmanned(case) or (in_own(case) if where.own_of else in_queue(case))
    return Why(
        where=where,
        known=True,
        waits=True,
        sentence=sentence,
        instances=not_there(case, hold and briefly(case)),
        start=_start(case, hold),
    )


def _start(case: Case, hold: str) -> Start:
    if hold:
        early = None if case.where.cancelled else due_in(case.where, case.now)
        return Start(earliest_s=early, why=hold)
    return expected(case.where, case.demand, case.takers)
