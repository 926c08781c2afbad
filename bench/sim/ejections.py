"""Ejection of machines that fail: each judges itself, by what goes well elsewhere."""

from __future__ import annotations

from collections import defaultdict

from bench.sim.fleet import Fleet
from bench.sim.loop import EPOCH_S
from bench.sim.machine import Machine
from bench.sim.work import Job
from nxs_tasks.model.decision import Eject
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.ejection import Runs, judge

#: Ends are counted by the minute; this minute and the one before tell how a name goes.
MINUTE_S = 60.0
#: Share of the fleet that may be ejected at a time; one always may.
SHARE = 0.1

#: Ends by name.
Ends = dict[str, Runs]


class Ejections:
    """Judges a machine at `eject_failures` failures in a row, and at each heartbeat.

    What ended on a machine is told by its heartbeats, and when it is judged. While it is ejected
    it is DEGRADED and takes nothing; after that it is ACTIVE as one that has just joined, and so
    many failures in a row are needed anew.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        #: When whom, s.
        self.times: list[tuple[float, str]] = []
        self._ends: dict[int, dict[str, Ends]] = defaultdict(lambda: defaultdict(dict))
        fleet.on_end.append(self._ended)
        fleet.on_beat.append(self._beat)

    def _ended(self, job: Job, machine: Machine) -> None:
        in_a_row = len(machine.tally.failing) >= self._fleet.settings.eject_failures
        if job.failed and in_a_row and machine.state is State.ACTIVE:
            self._judge(machine)

    def _beat(self, machine: Machine) -> None:
        self._tell(machine)
        if machine.state is State.ACTIVE:
            self._judge(machine)

    def _tell(self, machine: Machine) -> None:
        minute = int(self._fleet.loop.now // MINUTE_S)
        for old in [m for m in self._ends if m < minute - 1]:
            del self._ends[old]
        ends = self._ends[minute][machine.id]
        for name, ran in machine.tally.take().items():
            before = ends.get(name, Runs())
            ends[name] = Runs(before.succeeded + ran.succeeded, before.failed + ran.failed)

    def _lately(self, machine: Machine, *, here: bool) -> Ends:
        found: Ends = {}
        for by_machine in self._ends.values():
            for id_, ends in by_machine.items():
                if (id_ == machine.id) is here:
                    for name, runs in ends.items():
                        known = found.get(name, Runs())
                        found[name] = Runs(
                            known.succeeded + runs.succeeded, known.failed + runs.failed
                        )
        return found

    def _judge(self, machine: Machine) -> None:
        fleet, now = self._fleet, self._fleet.loop.now
        self._tell(machine)
        decision = judge(
            machine.instance(live=True),
            tuple(machine.tally.failing),
            self._lately(machine, here=True),
            self._lately(machine, here=False),
            fleet.settings,
            EPOCH_S + now,
        )
        out = sum(m.state is State.DEGRADED for m in fleet.machines)
        most = max(1, int(SHARE * len(fleet.machines)))
        if not isinstance(decision, Eject) or out >= most:
            return
        self.times.append((now, machine.id))
        machine.state, machine.since = State.DEGRADED, now
        machine.ejected_until, machine.ejections = now + decision.seconds, decision.times
        machine.victim = None
        machine.tally.failing.clear()
        fleet.loop.at(machine.ejected_until, self._take_again, machine)

    def _take_again(self, machine: Machine) -> None:
        machine.state, machine.since = State.ACTIVE, self._fleet.loop.now
        self._fleet.wake(machine)
