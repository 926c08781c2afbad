"""One side goes through one plan: start, submit, strike, settle, count."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import account
from chaos.crew import Condition, Place, Role, worker_places
from chaos.killer import Killer
from chaos.ledger import ACCEPTED, END, Tail, read
from chaos.plan import MODES, plan
from chaos.remains import key_families, total
from chaos.side import FREEZE_S, Side
from chaos.stage import Say, Stage
from chaos.verdict import Verdict, evidence, judge
from nxs_tasks.clock import SYSTEM, wait_until

#: Tasks that are done before the first act: everybody is at work.
WARM_UP = 100
#: What the submitter runs.
SUBMIT = "chaos.submitter:main"
#: Tasks whose evidence is kept with a result.
TOLD = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of what."""

    seed: int
    kills: int
    rate: float
    pace: float  # acts a second
    modes: tuple[str, ...] = MODES
    workers: int = 8
    slots: int = 4
    freeze_s: tuple[float, float] = FREEZE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one side came through with."""

    side: Side
    verdict: Verdict
    acts: Mapping[str, int]
    passed_over: Mapping[str, int]
    surprises: tuple[tuple[str, int], ...]  # ended and nobody had told it to: who, exit code
    rate: float  # accepted a second, over all the time of submission
    #: Seconds from the last act until all was done, None if it never was.
    settled_s: float | None
    keys: Mapping[str, int]  # kinds of keys that are left in the broker
    told: Mapping[str, list[str]]  # evidence of what is lost or unexplained

    @property
    def clean(self) -> bool:
        """As promised: nothing lost, unexplained or left, and nobody ended by itself."""
        return self.verdict.clean and not self.surprises

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        verdict = self.verdict
        return {
            "side": self.side.name,
            "accepted": verdict.accepted,
            "unanswered": verdict.unanswered,
            "rate": round(self.rate, 1),
            "acts": dict(self.acts),
            "passed_over": dict(self.passed_over),
            "lost": len(verdict.lost),
            "waiting": {place: len(ids) for place, ids in verdict.waiting.items()},
            "duplicates": dict(verdict.causes),
            "unexplained": verdict.unexplained,
            "left": dict(verdict.left),
            "strangers": len(verdict.strangers),
            "surprises": [list(surprise) for surprise in self.surprises],
            "settled_s": None if self.settled_s is None else round(self.settled_s, 1),
            "clean": verdict.clean,
        }


class Ordeal(Stage):
    """The whole of one side's run."""

    def __init__(self, side: Side, options: Options, directory: Path, say: Say) -> None:
        super().__init__(side, worker_places(options.workers, options.slots), directory)
        arguments = (options.seed, options.rate, str(self.sent), str(self.worked))
        self._submitter = Place("submitter", arguments, Role.SUBMITTER, call=SUBMIT)
        self.add(self._submitter)
        self._options = options
        self._say = say

    def run(self, stop: threading.Event) -> Result:
        """All of it. Every process has ended afterwards, also after an error."""
        with self:
            killer = self._killer()
            self._say("starting")
            begun = SYSTEM.monotonic()
            self.start_all()
            self.until(self._at_work, f"{WARM_UP} tasks are done")
            killer.run(stop, self._say)
            ended = self._end_submission()
            settled = self._settle(stop, killer)
            left = self.left()
            with self.server.client() as client:
                keys = key_families(client)
        judged = account.Account(
            submissions=account.submissions(read(self.sent)),
            runs=account.runs(read(self.worked)),
            hits=tuple(killer.hits),
            left=left,
        )
        verdict = judge(judged, self.side.visibility_s)
        return Result(
            side=self.side,
            verdict=verdict,
            acts=dict(killer.done),
            passed_over=dict(killer.passed_over),
            surprises=tuple(killer.surprises),
            rate=verdict.accepted / (ended - begun),
            settled_s=None if settled is None else settled - killer.last_act_at,
            keys=keys,
            told={task: evidence(judged, task) for task in _notable(verdict)[:TOLD]},
        )

    def _killer(self) -> Killer:
        options = self._options
        acts = plan(options.seed, options.kills, options.modes, options.pace, options.freeze_s)
        log = self.directory / "acts.jsonl"
        return Killer(self.crew, self.server, acts, options.seed, log)

    def _at_work(self) -> bool:
        return sum(line.kind == END for line in self.lines) >= WARM_UP

    def _end_submission(self) -> float:
        """When it ended, s."""
        self._say("the last submissions")
        if self._submitter.condition is Condition.UP:
            self.forks.end(self._submitter.pid)
            self._submitter.condition = Condition.DOWN
        return SYSTEM.monotonic()

    def _settle(self, stop: threading.Event, killer: Killer) -> float | None:
        """When everything was done and the broker empty, s; None if that never came."""
        missing = {line.task for line in read(self.sent) if line.kind == ACCEPTED}
        tail = Tail(self.worked)

        def settled() -> bool:
            missing.difference_update(line.task for line in tail.lines() if line.kind == END)
            killer.tick()
            self._say(f"settling, {len(missing)} are not done")
            return stop.is_set() or not (missing or total(self.left()))

        reached = wait_until(settled, self.side.settles_within_s, 0.2)
        return SYSTEM.monotonic() if reached and not stop.is_set() else None


def _notable(verdict: Verdict) -> list[str]:
    repeated = [d.run.task for d in verdict.duplicates if d.cause != "hard"]
    waiting = [task for ids in verdict.waiting.values() for task in ids]
    return [*verdict.lost, *repeated, *waiting]
