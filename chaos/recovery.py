"""How long until what a dead instance held runs elsewhere, with the default settings.

Every victim runs some tasks, and others wait in its own queue. It is killed, or frozen for good, at
a seeded moment; moments are spread, so that they meet heartbeats and control jobs in any phase. The
time of one victim is that of the last of its tasks of a kind to start elsewhere.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.figure import Figure, Goal
from chaos.crew import Place, worker_place
from chaos.ledger import START, Line
from chaos.side import nxs_side
from chaos.stage import Say, Stage
from nxs_tasks.clock import SYSTEM, wait_until

SLOTS = 2
POOLS = ("threads", "prefork")
#: Moments are spread over so long, s: many heartbeats and control jobs.
SPREAD_S = 60.0
#: Longest wait after the last victim, s. A deadline, not a goal.
PATIENCE_S = 180.0
#: No task of these ends by itself.
ENDLESS_S = 3600.0
KILLED_S, UNSTARTED_S, RUNNING_S = 30.0, 35.0, 65.0


@dataclass(slots=True)
class Victim:
    """One instance, what it is given, and when it was struck."""

    place: Place
    killed: bool
    at_s: float  # after the begin
    tasks: tuple[str, ...]
    struck_at: float = 0.0

    @property
    def kind(self) -> str:
        """As the figures say."""
        return "killed" if self.killed else "frozen"

    @property
    def running(self) -> tuple[str, ...]:
        """The tasks that it runs: it takes the first."""
        return self.tasks[:SLOTS]

    @property
    def waiting(self) -> tuple[str, ...]:
        """The tasks that wait in its queue."""
        return self.tasks[SLOTS:]


def run(options: argparse.Namespace, folder: Path, say: Say) -> Iterator[Figure]:
    """All figures. Raises `StageError`."""
    victims = _victims(options.runs, random.Random(options.seed))
    survivor = worker_place("survivor", "threads", 2 * SLOTS * len(victims))
    stage = Stage(nxs_side({}), [survivor, *(v.place for v in victims)], folder)
    with stage:
        say(f"starting {len(victims)} instances")
        stage.start_all()
        _load(stage, victims)
        _strike(stage, victims, say)
        say("waiting for the last to run elsewhere")
        wait_until(lambda: not _missing(victims, _elsewhere(stage)), PATIENCE_S, 0.2)
    yield from _figures(victims, _elsewhere(stage))


def _victims(runs: int, rng: random.Random) -> list[Victim]:
    found = []
    for number in range(2 * runs):
        place = worker_place(f"v{number}", POOLS[number // 2 % len(POOLS)], SLOTS)
        tasks = tuple(f"{place.name}-{n}" for n in range(2 * SLOTS))
        found.append(Victim(place, number % 2 == 0, rng.uniform(0.0, SPREAD_S), tasks))
    return sorted(found, key=lambda victim: victim.at_s)


def _load(stage: Stage, victims: list[Victim]) -> None:
    """Put its tasks into each own queue, and wait until it runs as many as it can."""
    stage.until_active(victim.place for victim in victims)
    for victim in victims:
        stage.hand(victim.place, dict.fromkeys(victim.tasks, (ENDLESS_S,)))
    wanted = {task for v in victims for task in v.running}
    stage.until(lambda: wanted == {line.task for line in stage.lines}, "each runs its tasks")


def _strike(stage: Stage, victims: list[Victim], say: Say) -> None:
    begun, due = SYSTEM.monotonic(), list(victims)

    def strike() -> bool:
        while due and SYSTEM.monotonic() - begun >= due[0].at_s:
            victim = due.pop(0)
            victim.struck_at = SYSTEM.monotonic()
            (stage.crew.kill if victim.killed else stage.crew.freeze)(victim.place)
            say(f"{len(due)} instances are left")
        return not due

    wait_until(strike, 2 * SPREAD_S)


def _elsewhere(stage: Stage) -> Mapping[str, float]:
    """Task → its first start on the survivor, s."""
    found: dict[str, float] = {}
    starts: Iterator[Line] = (line for line in stage.look() if line.kind == START)
    for line in starts:
        if line.holder.startswith("survivor"):
            found.setdefault(line.task, line.at)
    return found


def _missing(victims: list[Victim], elsewhere: Mapping[str, float]) -> set[str]:
    return {task for v in victims for task in v.tasks} - set(elsewhere)


def _figures(victims: list[Victim], elsewhere: Mapping[str, float]) -> Iterator[Figure]:
    goals = {
        ("killed", "running"): KILLED_S,
        ("killed", "waiting"): KILLED_S,
        ("frozen", "running"): RUNNING_S,
        ("frozen", "waiting"): UNSTARTED_S,
    }
    for (kind, what), goal in goals.items():
        chosen = [v for v in victims if v.kind == kind]
        times = [
            max(elsewhere.get(task, float("inf")) for task in getattr(v, what)) - v.struck_at
            for v in chosen
        ]
        for name, value, limit in (
            ("median", median(times), None),
            ("longest", max(times), Goal("value", "<=", goal)),
        ):
            metric = f"{kind}, {what}: {name} of {len(times)}"
            yield Figure(bench="recovery", metric=metric, value=value, unit="s", goal=limit)
