"""Which waiting tasks move from the line of one instance to that of another.

A line is weighed in expected seconds per slot. Tasks move from A to B

- if A's tasks wait while B is *idle*: it has a free slot and nothing waits for it; or
- if A's line is three times as long as B's and longer by two tasks for each slot.

So few move that none has to move twice: no more than half of the gap, than what A has above the
mean of those that know such tasks, and than what B lacks to it. An instance takes part in one
migration within `migrate_every`. That is one batch, and so a fleet is level after a few rounds and
not after thousands. Who received within `migrate_hold` gives only if its line is twice as far above
as it has to be: it must not give on what it has just been given.

A task with an affinity key waits for a warm cache, and is left to it: it moves to where its key is
warm too, or once it has waited for longer than `affinity_wait` allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from nxs_tasks.model.decision import Decision, Evidence, Migrate, Nothing
from nxs_tasks.model.instance import SHORTEST_S, Instance
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import PLACEABLE, State
from nxs_tasks.policy.fleet.readiness import unready
from nxs_tasks.settings import Settings

#: A's line against B's (spec 1.2), and how much longer it has to be, in tasks for each slot.
TIMES, GAP = 3.0, 2.0
#: By so much more for an instance that received lately.
FAR = 2.0
#: Of the line of an instance at most so much moves at once: what is expected may be wrong.
SHARE = 0.5
#: Tasks moved in one tick by all migrations together; the rest follows in the next.
MOST_A_TICK = 20_000
#: Targets that are tried for a source: the best ones of each kind of instance.
TRIED = 16
#: Sums of seconds are not exact.
NEARLY = 1e-9


@dataclass(frozen=True, slots=True)
class _Line:
    """One instance as it is weighed."""

    instance: Instance
    slots: int
    held: int
    queued: int
    each: float  # a task is expected to take so long, s; 1 where tasks are only counted
    no_giver: str  # why it gives nothing, "" if it may
    no_taker: str
    held_back: bool  # received lately

    @property
    def cost(self) -> float:
        """What one task adds to the line, s per slot."""
        return self.each / self.slots

    @property
    def waiting(self) -> float:
        """What waits, s per slot."""
        return self.queued * self.cost

    @property
    def all(self) -> float:
        """What waits and what is held, s per slot."""
        return (self.queued + self.held) * self.cost

    @property
    def free(self) -> int:
        """Free slots."""
        return max(0, self.slots - self.held)

    @property
    def idle(self) -> bool:
        """Whether a task that comes now would start now."""
        return self.free > 0 and not self.queued

    @property
    def tasks(self) -> frozenset[str]:
        """What it knows; nothing if that is unknown."""
        profile = self.instance.profile
        return profile.tasks if profile is not None else frozenset()


def rebalance(snapshot: Snapshot, settings: Settings, now: float) -> list[Decision]:
    """One decision for each instance but those that receive; the longest line first.

    `now` is the server's time, s.
    """
    each_s = _each(snapshot.instances)
    lines, decisions = [], list[Decision]()
    for instance in snapshot.instances:
        why_not = _unweighed(instance)
        if why_not:
            decisions.append(_stays(instance, why_not))
        else:
            lines.append(_line(instance, each_s, snapshot, settings, now))
    plan = _Plan(lines, settings, unit="s" if each_s is not None else "tasks")
    # Where two are equally long the later id gives: the earlier one is where placing begins.
    ordered = sorted(lines, key=lambda line: (line.all, line.instance.id), reverse=True)
    found = [plan.decide(line) for line in ordered if not line.no_giver]
    moves = [d for d in found if isinstance(d, Migrate)]
    busy = {m.target for m in moves}
    rest = [d for d in found if isinstance(d, Nothing) and d.instance not in busy]
    quiet = [
        _stays(line.instance, line.no_giver)
        for line in lines
        if line.no_giver and line.instance.id not in busy
    ]
    nothing = [d for d in (*decisions, *rest, *quiet) if isinstance(d, Nothing)]
    return [*moves, *sorted(nothing, key=lambda d: d.instance)]


def _each(instances: Iterable[Instance]) -> float | None:
    """The fleet's mean of a task, s; None if nobody knows, and then tasks are counted."""
    known = [m for i in instances if i.state in PLACEABLE and (m := i.load.mean_s) is not None]
    return max(SHORTEST_S, sum(known) / len(known)) if known else None


def _unweighed(instance: Instance) -> str:
    if instance.state not in PLACEABLE:
        return f"is {instance.state}"
    if not instance.load.slots or instance.held is None or instance.queued is None:
        return "its slots or its line are unknown"
    return ""


def _line(
    instance: Instance, each_s: float | None, snapshot: Snapshot, settings: Settings, now: float
) -> _Line:
    own = instance.load.mean_s
    each = max(SHORTEST_S, own) if own is not None else each_s
    resting = _resting(instance, settings, now)
    received = instance.received_at
    nothing = "" if instance.queued else "nothing waits in its queue"
    degraded = "" if instance.state is State.ACTIVE else f"is {instance.state}"
    return _Line(
        instance=instance,
        slots=instance.load.slots or 1,
        held=instance.held or 0,
        queued=instance.queued or 0,
        each=1.0 if each is None else each,
        no_giver=nothing or resting,
        no_taker=degraded or unready(instance, snapshot, settings) or resting,
        held_back=received is not None and now - received < settings.migrate_hold,
    )


def _resting(instance: Instance, settings: Settings, now: float) -> str:
    at = instance.migrated_at
    if at is None or now - at >= settings.migrate_every:
        return ""
    return f"took part in a migration {now - at:.0f} s ago: one in {settings.migrate_every:.0f} s"


def _stays(instance: Instance, reason: str, evidence: Evidence | None = None) -> Nothing:
    return Nothing(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        reason=reason,
        evidence=evidence or {},
    )


@dataclass(frozen=True, slots=True)
class _Size:
    """How many tasks move, or why none does."""

    tasks: int = 0
    after: int = 0
    why: str = ""


@dataclass(slots=True)
class _Kin:
    """The instances that matter for one set of tasks."""

    mean: float  # of all their lines, s per slot
    takers: list[tuple[bool, list[_Line]]]  # whether they lack some of the tasks; the best first
    able: frozenset[str]  # the ids of all takers


@dataclass(slots=True)
class _Plan:
    """The migrations of one tick: who takes part already, and how many tasks may still move."""

    lines: list[_Line]
    settings: Settings
    unit: str  # of what a line is weighed in
    left: int = MOST_A_TICK
    used: set[str] = field(default_factory=set)
    kins: dict[frozenset[str], _Kin] = field(default_factory=dict)

    def decide(self, source: _Line) -> Decision:
        """A migration away from it, or why there is none."""
        if source.instance.id in self.used:
            return _stays(source.instance, "receives from another one")
        kin = self.kins.get(source.tasks)
        if kin is None:
            kin = self.kins[source.tasks] = self._kin(source.tasks)
        why = "" if kin.able - {source.instance.id} else "nobody who may receive knows its tasks"
        for target in self._candidates(source, kin):
            size = _size(source, target, kin.mean, self.settings)
            tasks = min(size.tasks, self.left)
            if tasks:
                self.left -= tasks
                self.used |= {source.instance.id, target.instance.id}
                evidence = self._evidence(source, target, kin)
                return _migrate(source, target, tasks, size.after, evidence, self.settings)
            why = why or size.why or "as many tasks as one tick moves are moving already"
        why = why or "everybody who could take them takes part in another migration"
        return _stays(source.instance, why, self._evidence(source, None, kin))

    def _kin(self, tasks: frozenset[str]) -> _Kin:
        alike: dict[frozenset[str], list[_Line]] = {}
        for line in self.lines:
            alike.setdefault(line.tasks, []).append(line)
        related = {k: found for k, found in alike.items() if k & tasks or k == tasks}
        work = sum(line.all * line.slots for found in related.values() for line in found)
        slots = sum(line.slots for found in related.values() for line in found)
        takers = [
            (not tasks <= known, sorted((t for t in found if not t.no_taker), key=_rank))
            for known, found in related.items()
        ]
        able = frozenset(t.instance.id for _, found in takers for t in found)
        return _Kin(mean=work / max(1, slots), takers=takers, able=able)

    def _evidence(self, source: _Line, target: _Line | None, kin: _Kin) -> Evidence:
        """Lines for each slot, running tasks included."""
        sides = {**_about("source", source), **(_about("target", target) if target else {})}
        return {**sides, "mean_line": round(kin.mean, 3), "unit": self.unit}

    def _candidates(self, source: _Line, kin: _Kin) -> list[_Line]:
        """The best targets, those first that know all of the source's tasks."""
        found = []
        for lacks, takers in kin.takers:
            while takers and takers[0].instance.id in self.used:
                takers.pop(0)
            fresh = (t for t in takers if t.instance.id not in self.used and t is not source)
            found += [(lacks, _rank(t), t) for t, _ in zip(fresh, range(TRIED), strict=False)]
        return [t for _, _, t in sorted(found, key=lambda entry: entry[:2])]


def _rank(line: _Line) -> tuple[bool, float, str]:
    return not line.idle, line.all, line.instance.id


def _size(source: _Line, target: _Line, mean: float, settings: Settings) -> _Size:
    far = FAR if source.held_back else 1.0
    uneven = (
        source.waiting >= TIMES * far * target.waiting
        and source.waiting - target.waiting >= GAP * far * source.each
    )
    idle = target.idle and not source.held_back
    if not (idle or uneven):
        lately = ", and it has received itself lately" if source.held_back else ""
        return _Size(why=f"nobody is idle, or has a line so much shorter{lately}")
    # Who is idle may take what is next in turn, but for what starts at the source at this moment.
    after = source.free if idle else source.slots
    # A moved task lasts as long as on the slower of the two, by what either of them has run.
    added = max(source.each, target.each) / target.slots
    half = (source.all - target.all) / (source.cost + added)
    level = min((source.all - mean) / source.cost, (mean - target.all) / added)
    # One that waits for nothing moves also where the mean is a fraction of a task.
    fair = math.floor(min(half, max(level, float(idle))) + NEARLY)
    most = min(settings.migrate_most, math.ceil(source.queued * SHARE), source.queued - after)
    if fair < 1:
        return _Size(why="to move a task would gain nothing")
    if most < 1:
        return _Size(why="what waits is about to start")
    return _Size(tasks=min(fair, most), after=after)


def _migrate(
    source: _Line,
    target: _Line,
    tasks: int,
    after: int,
    evidence: Evidence,
    settings: Settings,
) -> Migrate:
    a, b = source.instance, target.instance
    why = "is idle" if target.idle else f"has {target.queued}"
    return Migrate(
        source=a.id,
        source_epoch=a.epoch,
        source_state=a.state,
        target=b.id,
        target_epoch=b.epoch,
        target_state=b.state,
        tasks=tasks,
        after=after,
        knows=target.tasks,
        warm=b.load.keys[: settings.affinity_keys],
        # As long as a thief leaves it there (`claim.lua`).
        cold_after=settings.affinity_wait * (b.load.mean_s or 0.0),
        reason=f"{source.queued} task(s) wait for {a.id}, {b.id} {why}",
        evidence=evidence,
    )


def _about(side: str, line: _Line) -> Evidence:
    return {
        f"{side}_line": round(line.all, 3),
        f"{side}_waiting": line.queued,
        f"{side}_held": line.held,
        f"{side}_slots": line.slots,
        f"{side}_each": round(line.each, 3),
    }
