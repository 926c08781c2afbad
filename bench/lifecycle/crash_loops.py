"""S9, unplanned: instances that crash again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.lifecycle.damping import RULES, CrashLoop, Spans, most
from bench.lifecycle.figures import NONE, figure
from bench.lifecycle.fleet import EPOCH_S, SETTINGS, Fleet
from bench.lifecycle.node import Node
from bench.lifecycle.trial import SEEDS
from bench.placement.pool import run_all
from nxs_tasks.model.decision import Withhold
from nxs_tasks.model.state import PLACEABLE, State
from nxs_tasks.policy.fleet.ranking import weights

SIZE, FLAPPING = 50, 15
#: A crash so often, s.
EVERY_S = 40.0
#: Back after so long, s: before anybody has seen that it was gone, and after.
SOON_S, LATER_S = 2.0, 20.0
ONE_S, MANY_S = 4 * 3600.0, 2 * 3600.0
#: Before the first crash, s.
STEADY_S = 180.0
#: Times are as exact as the server's clock, s.
EXACT_S = 1e-5

NXS, NO_RULE, CRASH_LOOP = "NXS", "no rule", "CrashLoopBackOff"
#: Nobody is ever withheld.
PATIENT = replace(SETTINGS, flap_losses=10**9)

GOAL_SHARE = Goal("value", "<=", 2.0)
GOAL_WITHHELD = Goal("value", "<=", 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashing:
    """What is run."""

    side: str
    crashing: int = 1
    away_s: float = SOON_S
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Became:
    """What came of it."""

    shares: dict[str, float]  # of the fleet's tasks, on those that crash, by who damps, %
    offs: tuple[float, ...]  # the back-offs in their order, s
    not_obeyed: int  # of them: another length than its turn says, or ACTIVE within it
    most: dict[str, float]  # withheld at a time, by who damps, % of the fleet
    innocent: int  # others that were withheld


class Loop:
    """Crashes a node again and again."""

    def __init__(self, node: Node, away_s: float, waits: CrashLoop | None) -> None:
        self._node, self._away_s, self._waits = node, away_s, waits
        self._up_s = EVERY_S - away_s

    def crash(self, at: float) -> None:
        """Now, and `EVERY_S` after; later, where it is not started again at once."""
        self._node.kill(at)
        away = self._away_s
        if self._waits is not None:
            away = max(away, self._waits.wait_s(self._up_s))
        self._node.at(at + away, self._node.start)
        self._node.at(at + away + self._up_s, self.crash)


class Tasks:
    """Who gets the tasks, at each tick: each in proportion to its weight, if it takes any."""

    def __init__(self, fleet: Fleet, crashing: set[str], since: float) -> None:
        self._fleet, self._crashing, self._since = fleet, crashing, since
        self.moments: list[float] = []
        #: At each moment, what those that crash would get, by name, of what all get.
        self.shares: list[dict[str, float]] = []
        self.withheld = 0
        fleet.on_tick.append(self._look)

    def _look(self, at: float) -> None:
        if at < self._since:
            return
        settings = self._fleet.settings
        ready = [
            i
            for i in self._fleet.records.snapshot(at).instances
            if i.state in PLACEABLE and at - (i.beat_at or i.since) <= settings.silent_after
        ]
        weight = weights(ready, at, settings)
        total = sum(weight.values())
        self.moments.append(at)
        self.shares.append({n: w / total for n, w in weight.items() if n in self._crashing})
        self.withheld = max(self.withheld, len(self._fleet.withheld(at)))

    def share(self, spans: Spans | None = None) -> float:
        """Of all tasks, %; without what a rule would have withheld."""
        got = sum(
            share
            for at, shares in zip(self.moments, self.shares, strict=True)
            for name, share in shares.items()
            if spans is None or not any(a <= at < b for a, b in spans.get(name, []))
        )
        return 100.0 * got / len(self.moments)


def measure(trial: Crashing) -> Became:
    """Run it."""
    fleet = Fleet(trial.seed, SIZE, settings=SETTINGS if trial.side == NXS else PATIENT)
    start = fleet.begin() + STEADY_S
    crashing = fleet.rng.sample(fleet.names, trial.crashing)
    for name in crashing:
        waits = CrashLoop() if trial.side == CRASH_LOOP else None
        loop = Loop(fleet.nodes[name], trial.away_s, waits)
        fleet.nodes[name].at(start + fleet.rng.uniform(0.0, EVERY_S), loop.crash)
    tasks = Tasks(fleet, set(crashing), start)
    fleet.run(start - EPOCH_S + (ONE_S if trial.crashing == 1 else MANY_S))
    spans = {name: rule(fleet.records.moves) for name, rule in RULES.items()}
    rules = spans if trial.side == NO_RULE else {}
    return Became(
        shares={trial.side: tasks.share()} | {n: tasks.share(s) for n, s in rules.items()},
        offs=tuple(round(w.until - w.loss_at, 3) for w in fleet.withholdings),
        not_obeyed=_not_obeyed(fleet),
        most={trial.side: 100.0 * tasks.withheld / SIZE}
        | {n: 100.0 * most(s, tasks.moments) / SIZE for n, s in rules.items()},
        innocent=sum(w.instance not in crashing for w in fleet.withholdings),
    )


def _not_obeyed(fleet: Fleet) -> int:
    """Of back-offs that were to be kept."""
    offs, turns, wrong = SETTINGS.back_offs, dict[str, int](), 0
    active = [(m.at, m.name) for m in fleet.records.moves if m.target is State.ACTIVE]
    for _, told in fleet.done:
        if not isinstance(told, Withhold):
            continue
        turn = turns[told.instance] = turns.get(told.instance, -1) + 1
        if not told.until:
            continue
        right = abs(told.until - told.loss_at - offs[min(turn, len(offs) - 1)]) < EXACT_S
        let_in = any(told.loss_at < at < told.until for at, name in active if name == told.instance)
        wrong += not right or let_in
    return wrong


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    sides = (NXS, NO_RULE, CRASH_LOOP)
    ones = [Crashing(side=s, away_s=a) for a in (SOON_S, LATER_S) for s in sides]
    many = [
        Crashing(side=s, crashing=FLAPPING, away_s=a) for a in (SOON_S, LATER_S) for s in sides[:2]
    ]
    seeded = [replace(t, seed=seed) for t in (*ones, *many) for seed in SEEDS]
    found = run_all(measure, seeded, say, "S9 crashes")

    def of(side: str, crashing: int, away_s: float) -> list[Became]:
        trial = Crashing(side=side, crashing=crashing, away_s=away_s)
        return [found[replace(trial, seed=seed)] for seed in SEEDS]

    for away_s in (SOON_S, LATER_S):
        by_side = {side: of(side, 1, away_s) for side in sides}
        yield from _one(f"crash every 40 s, back in {away_s:.0f} s", by_side)
    for away_s in (SOON_S, LATER_S):
        name = f"30 % crash, back in {away_s:.0f} s"
        ours, none = of(NXS, FLAPPING, away_s), of(NO_RULE, FLAPPING, away_s)
        peer = ("the letter", [b.most["the letter"] for b in none])
        held = [b.most[NXS] for b in ours]
        yield figure(f"{name}: withheld at a time", held, "%", GOAL_WITHHELD, of=max, peer=peer)
        peer = ("RFC 2439", [b.most["RFC 2439"] for b in none])
        yield figure(f"{name}: withheld at a time", held, "%", of=max, peer=peer)
        yield figure(f"{name}: others withheld", [b.innocent for b in ours], "", NONE, of=max)
        shares = (NO_RULE, [b.shares[NO_RULE] for b in none])
        yield figure(f"{name}: tasks on them", [b.shares[NXS] for b in ours], "%", peer=shares)


def _one(name: str, by_side: dict[str, list[Became]]) -> Iterator[Figure]:
    ours, none = by_side[NXS], by_side[NO_RULE]
    if not all(b.offs[:3] == SETTINGS.back_offs for b in ours):
        raise BenchError(f"{name}: the first back-offs are {[b.offs[:3] for b in ours]}")
    yield figure(f"{name}: back-offs", [len(b.offs) for b in ours], "")
    yield figure(f"{name}: not obeyed", [b.not_obeyed for b in ours], "", NONE, of=max)
    yield figure(f"{name}: others withheld", [b.innocent for b in ours], "", NONE, of=max)
    shares = [b.shares[NXS] for b in ours]
    yield figure(f"{name}: tasks on it", shares, "%", GOAL_SHARE, of=max)
    peers = [(n, [b.shares[n] for b in none]) for n in (NO_RULE, *RULES)]
    peers.append((CRASH_LOOP, [b.shares[CRASH_LOOP] for b in by_side[CRASH_LOOP]]))
    for peer in peers:
        yield figure(f"{name}: tasks on it", shares, "%", of=max, peer=peer)
