"""S9, planned: rolling restarts, and waves of load. Nobody may be withheld for either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from bench.catalog import Say
from bench.figure import Figure
from bench.lifecycle.damping import RULES, CrashLoop, literal, total_s
from bench.lifecycle.figures import NONE, figure
from bench.lifecycle.fleet import EPOCH_S, SETTINGS, Fleet
from bench.lifecycle.node import READY, SLOTS, Node
from bench.lifecycle.records import Move
from bench.lifecycle.trial import SEEDS
from bench.placement.pool import run_all
from nxs_tasks.model.instance import Load
from nxs_tasks.model.state import PLACEABLE, Event, State

RESTARTED = 20
#: Twice all of them, one after the other, within so long, s.
TWICE_S = 600.0
#: What runs at a SIGTERM takes so long, s; the next process is there after so long, s.
DRAIN_S, START_S = (0.0, 15.0), (2.0, 8.0)
#: Before the first restart, and after the last, s.
BEFORE_S, AFTER_S = 300.0, 1200.0
WAVES, WAVES_S, RHO = 50, 7200.0, 0.8
#: Mean time of a task in a wave, s.
TASK_S = 20.0
#: Read to the letter, an instance is DEGRADED while so much of it is busy.
BUSY = 0.75
CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True)
class Planned:
    """What is run: `deploy` or a wave of load."""

    deploy: bool
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What came of it."""

    withheld_s: dict[str, float]  # by who withholds, of all instances together
    losses: int = 0  # that were counted as unplanned
    flaps: int = 0  # transitions into or out of DEGRADED or out of the fleet
    letter_flaps: int = 0  # of the letter: into or out of DEGRADED


def measure(trial: Planned) -> Cost:
    """Run it."""
    return _deploy(trial.seed) if trial.deploy else _waves(trial.seed)


def _deploy(seed: int) -> Cost:
    fleet = Fleet(seed, RESTARTED)
    start, step = fleet.begin() + BEFORE_S, TWICE_S / (2 * RESTARTED)
    order = fleet.names
    fleet.rng.shuffle(order)
    crash_loop_s = 0.0
    for n, name in enumerate(order):
        waits, ran = CrashLoop(), BEFORE_S
        for turn in (n, RESTARTED + n):
            at, drain = start + turn * step, fleet.rng.uniform(*DRAIN_S)
            away = fleet.rng.uniform(*START_S)
            fleet.nodes[name].at(at, partial(fleet.nodes[name].terminate, drain_s=drain))
            fleet.nodes[name].at(at + drain + away, fleet.nodes[name].start)
            crash_loop_s += waits.wait_s(ran)
            ran = TWICE_S / 2 - drain - away
    withheld = _Withheld(fleet)
    end = start + TWICE_S + AFTER_S
    fleet.run(end - EPOCH_S)
    moves = fleet.records.moves
    return Cost(
        withheld_s={
            "NXS": withheld.seconds,
            **{name: total_s(rule(moves), end) for name, rule in RULES.items()},
            CRASH_LOOP: crash_loop_s,
        },
        losses=sum(len(record.losses) for record in fleet.records.by_name.values()),
    )


class _Withheld:
    """Adds up for how long anybody is withheld, tick by tick."""

    def __init__(self, fleet: Fleet) -> None:
        self.seconds = 0.0
        self._fleet = fleet
        fleet.on_tick.append(self._add)

    def _add(self, at: float) -> None:
        self.seconds += len(self._fleet.withheld(at)) * SETTINGS.lifecycle_period


class Wave:
    """The slots of one instance: tasks come by chance, and wait while all slots are taken."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._tasks = 0
        self._at = EPOCH_S
        self.shares: list[tuple[float, float]] = []

    def load(self, at: float) -> Load:
        """What a heartbeat says of it."""
        comes, ends = RHO * SLOTS / TASK_S, 1.0 / TASK_S
        while True:
            rate = comes + ends * min(self._tasks, SLOTS)
            soon = self._at + self._rng.expovariate(rate)
            if soon > at:
                self._at = at
                break
            self._at = soon
            self._tasks += 1 if self._rng.random() < comes / rate else -1
        running = min(self._tasks, SLOTS)
        self.shares.append((at, running / SLOTS))
        return replace(READY, running=running, queued=self._tasks - running)


def _waves(seed: int) -> Cost:
    # Every tick is evaluated: a busy fleet is what is asked about.
    fleet = Fleet(seed, WAVES, skip=False)
    waves = {name: Wave(Random(f"wave {name} {seed}")) for name in fleet.names}
    start = fleet.begin()
    for name, node in fleet.nodes.items():
        _take(node, waves[name])
    withheld = _Withheld(fleet)
    fleet.run(WAVES_S)
    moves = [m for m in fleet.records.moves if m.at > start]
    letter = [move for name, wave in waves.items() for move in _letter(name, wave)]
    return Cost(
        withheld_s={
            "NXS": withheld.seconds,
            "the letter": total_s(literal(letter), EPOCH_S + WAVES_S),
        },
        flaps=sum(m.source in PLACEABLE for m in moves),
        letter_flaps=len(letter),
    )


def _take(node: Node, wave: Wave) -> None:
    node.load = wave.load


def _letter(name: str, wave: Wave) -> Iterator[Move]:
    state = State.ACTIVE
    for at, share in wave.shares:
        wanted = State.DEGRADED if share >= BUSY else State.ACTIVE
        if wanted is not state:
            event = Event.UNHEALTHY if wanted is State.DEGRADED else Event.RECOVERED
            yield Move(at, name, 1, state, wanted, event)
            state = wanted


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    trials = [Planned(deploy, seed) for deploy in (True, False) for seed in SEEDS]
    seen = run_all(measure, trials, say, "S9 planned")
    deploys = [seen[t] for t in trials if t.deploy]
    waves = [seen[t] for t in trials if not t.deploy]
    ours = [cost.withheld_s["NXS"] for cost in deploys]
    yield figure("rolling restart: withheld", ours, "s", NONE, of=max)
    for name in (*RULES, CRASH_LOOP):
        theirs = (name, [cost.withheld_s[name] for cost in deploys])
        yield figure("rolling restart: withheld", ours, "s", of=max, peer=theirs)
    yield figure("rolling restart: losses", [c.losses for c in deploys], "", NONE, of=max)
    flaps, letter = [c.flaps for c in waves], [c.letter_flaps for c in waves]
    yield figure("load at 80 %: flaps", flaps, "", NONE, of=max, peer=("the letter", letter))
    held = [c.withheld_s["NXS"] for c in waves]
    theirs = ("the letter", [c.withheld_s["the letter"] for c in waves])
    yield figure("load at 80 %: withheld", held, "s", NONE, of=max, peer=theirs)
