"""A fleet over some hours: nodes, the lifecycle at its ticks, and what both sides made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from bench.lifecycle.node import Delay, Node, short
from bench.lifecycle.records import Records
from bench.lifecycle.watchers import Look, Watcher
from nxs_tasks.control.observing import LONGEST_PAUSE
from nxs_tasks.errors import Stale
from nxs_tasks.model.decision import Decision, Nothing, Transition, Withhold
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.policy.fleet.observation import observe
from nxs_tasks.settings import Settings, load

SETTINGS = load({}, env={}).settings
#: Server time at the start, s: a time of 0 would hide who takes 0 for "never".
EPOCH_S = 1_000_000.0
#: A tick comes so much later than planned, s: the mean.
LATE_S = 0.02

OURS = "NXS"


@dataclass(slots=True)
class Verdicts:
    """What one side said of the fleet."""

    deaths: int = 0  # of living nodes
    suspicions: int = 0  # of living nodes: given no work
    detected_s: list[float] = field(default_factory=list)  # from the loss to no work


@dataclass(frozen=True, slots=True)
class Stall:
    """The observer does nothing from `start` to `end`; `acting`: between its look and its acts."""

    start: float
    end: float
    acting: bool = False


class Fleet:
    """Nodes with NXS's lifecycle, and watchers that only watch."""

    def __init__(
        self,
        seed: int,
        size: int = 50,
        *,
        settings: Settings = SETTINGS,
        loss: float = 0.0,
        delay: Delay = short,
        skip: bool = True,
    ) -> None:
        """`skip`: ticks at which nothing can be decided are not evaluated."""
        self.settings = settings
        self.records = Records(settings)
        self.rng = Random(f"fleet {seed}")
        self.nodes = {
            name: Node(name, self.records, Random(f"{name} {seed}"), loss, delay)
            for name in (f"w{n:03}" for n in range(size))
        }
        self.watchers: dict[str, Watcher] = {}
        self.verdicts: dict[str, Verdicts] = {OURS: Verdicts()}
        self.stalls: list[Stall] = []
        #: Of the server: from when to when it is down.
        self.outages: list[tuple[float, float]] = []
        #: Of NXS: what it carried out, when.
        self.done: list[tuple[float, Decision]] = []
        self.evaluated = 0
        #: Told of each tick, after it.
        self.on_tick: list[Callable[[float], object]] = []
        self._skip = skip
        self._was_out: dict[str, frozenset[str]] = {}
        self._was_dead: dict[str, frozenset[str]] = {}

    @property
    def names(self) -> list[str]:
        """Of all nodes."""
        return list(self.nodes)

    def watch(self, watchers: Mapping[str, Watcher]) -> None:
        """Have others look too."""
        for name, watcher in watchers.items():
            self.watchers[name], self.verdicts[name] = watcher, Verdicts()

    def begin(self) -> float:
        """Start all processes; the time from which on the fleet is at work."""
        for node in self.nodes.values():
            node.at(EPOCH_S + self.rng.uniform(0.0, self.settings.heartbeat_period), node.start)
        return EPOCH_S + 60.0

    def restart_server(self, at: float, seconds: float) -> None:
        """It is away for a while, and with it all connections."""
        self.outages.append((at, at + seconds))
        for node in self.nodes.values():
            node.at(at, partial(node.cut, closed=True))
            node.at(at + seconds, node.mend)

    def run(self, seconds: float) -> None:
        """From the start on, tick by tick."""
        period, planned = self.settings.lifecycle_period, EPOCH_S
        stalls = iter(sorted(self.stalls, key=lambda stall: stall.start))
        stall, slow = next(stalls, None), False
        while planned < EPOCH_S + seconds:
            at, slept, acting = planned + self.rng.expovariate(1.0 / LATE_S), slow, 0.0
            while stall is not None and stall.end <= at:
                stall = next(stalls, None)
            if stall is not None and at >= stall.start:
                if stall.acting:
                    acting = stall.end - at
                else:
                    slept, at = True, stall.end
            planned = max(planned, at + acting - period) + period
            self._tick(at, slept, acting)
            slow = acting > 0.0

    def _tick(self, at: float, slept: bool, acting_s: float) -> None:
        for node in self.nodes.values():
            node.advance(at)
        down = any(start <= at < end for start, end in self.outages)
        if self.watchers:
            self._have_others_look(Look(at, *self._heard(), not down), slept)
        if not down:
            self.records.server_started_at = max(
                (end for _, end in self.outages if end <= at), default=EPOCH_S - 3600.0
            )
            self._look(at, acting_s)
        for told in self.on_tick:
            told(at)

    def _heard(self) -> tuple[dict[str, list[float]], frozenset[str]]:
        heard, fresh = {}, []
        for name, node in self.nodes.items():
            heard[name], node.heard = node.heard, []
            if node.fresh:
                node.fresh = False
                fresh.append(name)
        return heard, frozenset(fresh)

    def _look(self, at: float, acting_s: float) -> None:
        period = self.settings.lifecycle_period
        since, gap, believed = self.records.observe(at, LONGEST_PAUSE * period)
        if self._skip and self.records.is_quiet(at):
            return
        self.evaluated += 1
        snapshot = self.records.snapshot(at, since, believed, max(0.0, gap - period))
        if observe(snapshot, self.settings, at).suspect:
            self.records.doubt()
        decisions = evaluate(snapshot, self.settings, at)
        if acting_s:
            for node in self.nodes.values():
                node.advance(at + acting_s)
        for decision in decisions:
            if not isinstance(decision, Nothing):
                self._act(at + acting_s, decision)

    def _act(self, at: float, decision: Decision) -> None:
        try:
            self.records.apply(at, decision)
        except Stale:
            return
        self.done.append((at, decision))
        if isinstance(decision, Transition):
            self._count(at, decision)

    def _count(self, at: float, move: Transition) -> None:
        if move.target not in (State.ZOMBIE, State.GONE) or move.event is Event.DRAINED:
            return
        node, ours = self.nodes[move.instance], self.verdicts[OURS]
        if node.up and node.epoch == move.epoch:
            ours.deaths += move.target is State.GONE
            ours.suspicions += move.target is State.ZOMBIE
        elif node.died_at is not None and move.source is not State.ZOMBIE:
            ours.detected_s.append(at - node.died_at)

    def _have_others_look(self, look: Look, slept: bool) -> None:
        # Who has slept looks at the clock before it has read what came meanwhile.
        steps = ("judge", "read") if slept else ("read", "judge")
        for step in steps:
            for watcher in self.watchers.values():
                getattr(watcher, step)(look)
        for side, watcher in self.watchers.items():
            verdicts = self.verdicts[side]
            out, dead = frozenset(watcher.out), frozenset(watcher.dead)
            for name in out - self._was_out.get(side, frozenset()):
                node = self.nodes[name]
                verdicts.suspicions += node.up and node.known
                if node.died_at is not None:
                    verdicts.detected_s.append(look.at - node.died_at)
            gone = dead - self._was_dead.get(side, frozenset())
            verdicts.deaths += sum(
                node.up and node.known for node in map(self.nodes.__getitem__, gone)
            )
            self._was_out[side], self._was_dead[side] = out, dead

    # what came of it

    @property
    def withholdings(self) -> list[Withhold]:
        """In their order; those that were only told are among them."""
        return [d for _, d in self.done if isinstance(d, Withhold)]

    def withheld(self, at: float) -> set[str]:
        """Who is withheld at that time."""
        return {name for name, r in self.records.by_name.items() if r.until > at}
