"""A task that kills its worker: how many it hits, how soon it is put away, what the others lose.

The same work runs twice, on the same fleet with the default settings: once without the poison, once
beside it. It is bound by slots, not by the processor, so that both runs mean the same. Workers
that end are started again at once, as a supervisor does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figure import Figure, Goal
from chaos.crew import worker_places
from chaos.killer import Killer
from chaos.ledger import END, START
from chaos.remains import remains
from chaos.side import nxs_side
from chaos.stage import Say, Stage, StageError
from nxs_tasks.clock import SYSTEM

POOLS = ("threads", "prefork")
WORK_S = 0.2
#: Less urgent than the poison, which would otherwise come last.
PRIORITY = 6
#: The poison comes when so many are done.
BEFORE = 500
POISON = "the-poison"
QUARANTINE = "shelf quarantine"
HITS, QUARANTINED_S, THROUGHPUT = 3, 60.0, 0.9


@dataclass(slots=True)
class Outcome:
    """One of the two runs."""

    rate: float = 0.0  # others a second
    hits: tuple[float, ...] = ()  # when the poison started
    put_away_at: float = float("inf")
    left: int = 0  # other tasks that are not done
    ended: int = 0  # processes that ended by themselves


def run(options: argparse.Namespace, folder: Path, say: Say) -> Iterator[Figure]:
    """All figures. Raises `StageError`."""
    without = _outcome(options, folder / "without", say, poisoned=False)
    beside = _outcome(options, folder / "with", say, poisoned=True)
    if not beside.hits:
        raise StageError("the poison has hit nobody: nothing was measured")
    yield _figure("workers hit", len(beside.hits), Goal("value", "<=", HITS), "workers")
    put_away_s = beside.put_away_at - beside.hits[-1]
    limit = Goal("value", "<=", QUARANTINED_S)
    yield _figure("from the last hit to quarantine", put_away_s, limit, "s")
    yield Figure(
        bench="poison",
        metric="throughput of the others",
        value=beside.rate,
        unit="tasks/s",
        peer="without",
        peer_value=without.rate,
        ratio=beside.rate / without.rate,
        goal=Goal("ratio", ">=", THROUGHPUT),
    )
    yield _figure("others that are not done", beside.left, Goal("value", "<=", 0), "tasks")


def _outcome(options: argparse.Namespace, folder: Path, say: Say, *, poisoned: bool) -> Outcome:
    places = worker_places(options.workers, options.slots, POOLS)
    stage = Stage(nxs_side({}), places, folder)
    told = "with the poison" if poisoned else "without it"
    with stage:
        say(f"{told}: submitting {options.tasks} tasks")
        ids = [f"other-{n}" for n in range(options.tasks)]
        stage.send(dict.fromkeys(ids, (WORK_S,)), priority=PRIORITY)
        stage.start_all()
        return _Watch(stage, len(ids), poisoned, say).result()


class _Watch:
    """Sees one run to its end, and starts again who ends."""

    def __init__(self, stage: Stage, tasks: int, poisoned: bool, say: Say) -> None:
        self._stage = stage
        self._tasks = tasks
        self._poisoned = poisoned
        self._say = say
        self._sent = False
        self._outcome = Outcome()
        self._keeper = Killer(stage.crew, stage.server, (), 0, stage.directory / "acts.jsonl")

    def result(self) -> Outcome:
        slowest = 60.0 + 4 * self._tasks * WORK_S  # one slot would need no more than that
        self._stage.until(self._step, "all is done and the poison put away", slowest)
        lines = self._stage.lines
        ends = [line.at for line in lines if line.kind == END]
        outcome = self._outcome
        outcome.rate = self._tasks / (max(ends) - min(line.at for line in lines))
        outcome.hits = tuple(
            line.at for line in lines if line.kind == START and line.task == POISON
        )
        outcome.ended = len(self._keeper.surprises)
        left = self._stage.left()
        outcome.left = sum(len(ids) for place, ids in left.items() if place != QUARANTINE)
        return outcome

    def _step(self) -> bool:
        self._keeper.tick()
        done = {line.task for line in self._stage.lines if line.kind == END}
        self._say(f"{len(done)} of {self._tasks} are done")
        if self._poisoned and not self._sent and len(done) >= BEFORE:
            self._sent = True
            self._stage.send({POISON: ()}, name="chaos.poison")
        if self._sent and self._outcome.put_away_at == float("inf"):
            with self._stage.server.client() as client:
                if POISON in remains(client).get(QUARANTINE, ()):
                    self._outcome.put_away_at = SYSTEM.monotonic()
        away = not self._poisoned or self._outcome.put_away_at < float("inf")
        return away and len(done) >= self._tasks


def _figure(metric: str, value: float, goal: Goal, unit: str) -> Figure:
    return Figure(bench="poison", metric=metric, value=value, unit=unit, goal=goal)
