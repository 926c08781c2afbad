"""A backlog on one of four instances, under the real policy: how soon it is done, by what moves.

A simulation in steps of a second: 10,000 tasks of 1 s wait for one of four instances with four
slots each. The policy is asked each 30 s; with `steals`, who is idle takes one task for each free
slot from the longest line each second, beside it. After two minutes a fifth instance joins, after
four one of the first leaves, and what waits for it is shared out among the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from nxs_tasks.model.decision import Migrate
from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.rebalance import rebalance
from nxs_tasks.settings import Settings

TASKS, SLOTS, TICK = 10_000, 4, 30
JOINS_AT, LEAVES_AT = 120, 240
PROFILE = Profile(tasks=frozenset({"work"}), queues=frozenset({"celery"}))
SETTINGS = Settings()


@dataclass(slots=True)
class _Machine:
    name: str
    line: list[int] = field(default_factory=list)  # numbers of tasks, the oldest first
    migrated_at: float | None = None
    received_at: float | None = None
    times: list[int] = field(default_factory=list)  # of its migrations


@dataclass(slots=True)
class _Account:
    machines: dict[str, _Machine]
    steals: bool
    moved_at: dict[int, int] = field(default_factory=dict)
    was_at: dict[int, set[str]] = field(default_factory=dict)
    moves: Counter[str] = field(default_factory=Counter)
    returned: int = 0  # tasks that came back to where they had been
    inversions: int = 0
    gone: str = ""

    def second(self, now: int) -> int:
        """One second; returns how many tasks were done in it."""
        if now % TICK == 0:
            for decision in rebalance(self._snapshot(now), SETTINGS, float(now)):
                if isinstance(decision, Migrate):
                    self._migrate(decision, now)
        if self.steals:
            self._steal()
        done = 0
        for machine in self.machines.values():
            if machine.name != self.gone:
                done += len(machine.line[:SLOTS])
                del machine.line[:SLOTS]
        return done

    def leave(self, name: str) -> None:
        """What waits for it is shared out."""
        self.gone = name
        rest, self.machines[name].line = self.machines[name].line, []
        others = [m for m in self.machines.values() if m.name != name]
        for number, task in enumerate(rest):
            others[number % len(others)].line.append(task)
        for machine in others:
            machine.line.sort()

    def _snapshot(self, now: int) -> Snapshot:
        return Snapshot(
            taken_at=float(now),
            shared_queue="celery",
            instances=tuple(self._instance(m, now) for m in self.machines.values()),
        )

    def _instance(self, machine: _Machine, now: int) -> Instance:
        held = min(SLOTS, len(machine.line))
        state = State.LEAVING if machine.name == self.gone else State.ACTIVE
        return Instance(
            id=machine.name,
            state=state,
            epoch=1,
            since=0.0,
            beat_at=float(now),
            beats=100,
            load=Load(slots=SLOTS, running=held, consuming=True, mean_s=1.0),
            profile=PROFILE,
            inflight=held,
            queued=len(machine.line) - held,
            migrated_at=machine.migrated_at,
            received_at=machine.received_at,
        )

    def _migrate(self, move: Migrate, now: int) -> None:
        source, target = self.machines[move.source], self.machines[move.target]
        first = min(SLOTS, len(source.line)) + move.after
        free = [
            t
            for t in source.line[first:]
            if now - self.moved_at.get(t, -1_000_000) >= SETTINGS.migrate_hold
        ][: move.tasks]
        if not free:
            return
        chosen = set(free)
        source.line = [t for t in source.line if t not in chosen]
        running, waiting = target.line[:SLOTS], target.line[SLOTS:]
        target.line = [*running, *sorted([*waiting, *free])]
        for task in free:
            been = self.was_at.setdefault(task, set())
            self.returned += target.name in been
            been.add(source.name)
            self.moved_at[task] = now
        self.moves["migrations"] += 1
        self.moves["tasks"] += len(free)
        for machine in (source, target):
            machine.migrated_at = float(now)
            machine.times.append(now)
            waits = machine.line[SLOTS:]
            self.inversions += sum(a > b for a, b in pairwise(waits))
        target.received_at = float(now)

    def _steal(self) -> None:
        alive = [m for m in self.machines.values() if m.name != self.gone]
        for thief in alive:
            for _ in range(max(0, SLOTS - len(thief.line))):
                victim = max(alive, key=lambda m: len(m.line))
                if len(victim.line) > SLOTS:
                    thief.line.append(victim.line.pop(SLOTS))
                    self.moves["stolen"] += 1


def _drain(*, changes: bool, steals: bool) -> tuple[int, float, _Account]:
    """Seconds until all is done, the shortest that could be, and the account."""
    machines = {f"w{n}": _Machine(f"w{n}") for n in range(4)}
    machines["w0"].line = list(range(TASKS))
    account = _Account(machines, steals)
    done = now = 0
    room = 0
    bound = 0.0
    while done < TASKS:
        if changes and now == JOINS_AT:
            machines["w4"] = _Machine("w4")
        if changes and now == LEAVES_AT:
            account.leave("w1")
        slots = SLOTS * (len(machines) - bool(account.gone))
        if room < TASKS:
            bound += min(1.0, (TASKS - room) / slots)
            room += slots
        done += account.second(now)
        now += 1
        if now > 100 * TASKS:
            raise BenchError("the backlog is never done")
    while room < TASKS:
        bound, room = bound + 1.0, room + slots
    return now, bound, account


def run(say: Say) -> Iterator[Figure]:
    """Both fleets, the moves alone and with stealing beside them."""
    for label, changes in (("four stay", False), ("one joins, one leaves", True)):
        for steals in (False, True):
            say(f"{label}, {'with' if steals else 'without'} stealing")
            took, bound, account = _drain(changes=changes, steals=steals)
            name = f"{label}{', stealing' if steals else ''}"
            yield from _figures(name, took, bound, account, full=steals, fixed=not changes)


def _figures(
    name: str, took: int, bound: float, account: _Account, *, full: bool, fixed: bool
) -> Iterator[Figure]:
    def figure(metric: str, value: float, unit: str, goal: Goal | None = None) -> Figure:
        return Figure(bench="drain", metric=f"{name}: {metric}", value=value, unit=unit, goal=goal)

    none = Goal("value", "<=", 0.0)
    yield Figure(
        bench="drain",
        metric=f"{name}: done after",
        value=took,
        unit="s",
        peer="bound",
        peer_value=bound,
        ratio=took / bound,
        goal=Goal("ratio", "<=", 1.05) if full else None,
    )
    least = TASKS * 3 / 4
    moved = (account.moves["tasks"] + account.moves["stolen"]) / least
    yield figure("moved / least", moved, "×", Goal("value", "<=", 1.3) if fixed else None)
    yield figure("migrations", account.moves["migrations"], "migrations")
    yield figure("stolen", account.moves["stolen"], "tasks")
    yield figure("came back", account.returned, "tasks", none)
    yield figure("inversions", account.inversions, "", none)
    gaps = [b - a for machine in account.machines.values() for a, b in pairwise(machine.times)]
    yield figure("least between two of one", min(gaps, default=0), "s", Goal("value", ">=", 60.0))
