"""Ejection of machines that fail: each judges itself, by what goes well elsewhere."""

from __future__ import annotations

from collections import defaultdict

from bench.sim.fleet import Fleet
from bench.sim.loop import EPOCH_S
from bench.sim.machine import Machine
from bench.sim.work import Job
from nxs_tasks.model.decision import Eject
from nxs_tasks.model.runs import Runs
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.ejection import Failing, judge

#: Ends are counted by periods of so long, and compared for so long back, s.
PERIOD_S, WINDOW_S = 5.0, 60.0
#: After the last of a row of failures the others have so long to tell how their tasks end, s.
SETTLING_S = 6.0
#: For so long a name that fails elsewhere too suspends nothing, s.
TRUSTED_S = 300.0
#: Share of the fleet that may be ejected at a time; one always may.
SHARE = 0.1

#: Ends by name.
Ends = dict[str, Runs]


class Ejections:
    """Judges a machine some seconds after `eject_failures` failures in a row, and at heartbeats.

    Meanwhile it takes nothing, as in `worker.ejecting`. What ended on a machine is told by its
    heartbeats, and when it is judged. While it is ejected it is DEGRADED; after that it is ACTIVE
    as one that has just joined.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        #: When whom, s.
        self.times: list[tuple[float, str]] = []
        self._ends: dict[int, dict[str, Ends]] = defaultdict(lambda: defaultdict(dict))
        self._trusted: dict[tuple[str, str], float] = {}
        fleet.on_end.append(self._ended)
        fleet.on_beat.append(self._beat)

    def _ended(self, job: Job, machine: Machine) -> None:
        if not job.failed or machine.suspended or machine.state is not State.ACTIVE:
            return
        row = machine.tally.rows[job.task].count
        trusted = self._trusted.get((machine.id, job.task), -TRUSTED_S)
        long = max(row, len(machine.tally.tail)) >= self._fleet.settings.eject_failures
        if long and self._fleet.loop.now - trusted >= TRUSTED_S:
            self._tell(machine)
            machine.suspended = True
            self._fleet.loop.at(self._fleet.loop.now + SETTLING_S, self._settle, machine)

    def _settle(self, machine: Machine) -> None:
        self._judge(machine)
        machine.suspended = False
        self._fleet.wake(machine)

    def _beat(self, machine: Machine) -> None:
        self._tell(machine)
        if machine.state is State.ACTIVE and not machine.suspended:
            self._judge(machine)

    def _tell(self, machine: Machine) -> None:
        period = int(self._fleet.loop.now // PERIOD_S)
        for old in [p for p in self._ends if p < period - 2 * WINDOW_S / PERIOD_S]:
            del self._ends[old]
        ends = self._ends[period][machine.id]
        for name, ran in machine.tally.take().items():
            before = ends.get(name, Runs())
            ends[name] = Runs(before.succeeded + ran.succeeded, before.failed + ran.failed)

    def _lately(self, machine: Machine, name: str, since: float, *, here: bool) -> Runs:
        found = Runs()
        for period, by_machine in self._ends.items():
            if period < since // PERIOD_S:
                continue
            for id_, ends in by_machine.items():
                if (id_ == machine.id) is here and name in ends:
                    runs = ends[name]
                    found = Runs(found.succeeded + runs.succeeded, found.failed + runs.failed)
        return found

    def _judge(self, machine: Machine) -> None:
        fleet, now, tally = self._fleet, self._fleet.loop.now, machine.tally
        self._tell(machine)
        if not tally.rows:
            return
        rows = {name: row.count for name, row in tally.rows.items()}
        since = {
            name: self._lately(machine, name, row.since, here=False)
            for name, row in tally.rows.items()
        }
        last = now - WINDOW_S
        here = {name: self._lately(machine, name, last, here=True) for name in rows}
        elsewhere = {name: self._lately(machine, name, last, here=False) for name in rows}
        failing = Failing(rows, tuple(tally.tail), since)
        instance = machine.instance(live=True)
        decision = judge(instance, failing, here, elsewhere, fleet.settings, EPOCH_S + now)
        if not isinstance(decision, Eject):
            if machine.suspended:
                self._trusted.update(dict.fromkeys(((machine.id, name) for name in rows), now))
            return
        out = sum(m.state is State.DEGRADED for m in fleet.machines)
        if out < max(1, int(SHARE * len(fleet.machines))):
            self._eject(machine, decision)

    def _eject(self, machine: Machine, decision: Eject) -> None:
        fleet, now = self._fleet, self._fleet.loop.now
        self.times.append((now, machine.id))
        machine.state, machine.since = State.DEGRADED, now
        machine.ejected_until, machine.ejections = now + decision.seconds, decision.times
        machine.victim = None
        machine.tally.forget_rows()
        fleet.loop.at(machine.ejected_until, self._take_again, machine)

    def _take_again(self, machine: Machine) -> None:
        machine.tally.forget_rows()
        machine.state, machine.since = State.ACTIVE, self._fleet.loop.now
        self._fleet.wake(machine)
