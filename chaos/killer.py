"""Carries out a plan, act by act, and notes what was really done to whom, from when to when."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chaos.account import EVERYBODY, Hit
from chaos.crew import Condition, Crew, Place, Role
from chaos.plan import Act
from chaos.server import BrokerServer
from nxs_tasks.clock import SYSTEM
from nxs_tasks.errors import BrokerError
from nxs_tasks.store.connect import explained

#: A pool process that was killed ends its worker, if that had just started it, within so long, s.
STARTS_WITHIN_S = 5.0
#: A warm shutdown that takes longer than this ends by SIGKILL, s: its tasks are shorter.
LEAVES_WITHIN_S = 20.0
#: Pool processes whose main process was killed end by themselves, or are killed after this, s.
ORPHANS_END_WITHIN_S = 5.0
#: Exit codes of who was told to leave; the other one if it had not yet learned to listen.
LEFT = (0, -signal.SIGTERM)
#: Between two looks whether somebody has ended, s.
LOOK_S = 0.1
Step = Callable[[], None]


class Killer:
    """One plan on one crew and one server."""

    def __init__(
        self, crew: Crew, server: BrokerServer, acts: Sequence[Act], seed: int, log: Path
    ) -> None:
        self._crew = crew
        self._server = server
        self._acts = acts
        self._rng = random.Random(f"killer {seed}")
        self._log = log
        self._steps: list[tuple[float, int, Step]] = []
        self._numbers = itertools.count()
        self.hits: list[Hit] = []
        self.done: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        #: Ends of processes that no act explains: what happened, and the exit code.
        self.surprises: list[tuple[str, int]] = []
        self.last_act_at = SYSTEM.monotonic()
        self._looked_at = 0.0
        self._doing: dict[str, Callable[[Act], bool]] = {
            "hard": self._hard,
            "term": self._term,
            "stop": self._stop,
            "cut": self._cut,
            "child": self._child,
            "control": partial(self._kill_one, Role.CONTROL),
            "submitter": partial(self._kill_one, Role.SUBMITTER),
            "restart": self._restart,
        }

    def run(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Carry the plan out, and have everybody back. Ends early when told to stop."""
        begun = SYSTEM.monotonic()
        for act in self._acts:
            self._at(begun + act.at, lambda act=act: self._do(act))  # type: ignore[misc]
        while (self._steps or self._someone_leaves()) and not stop.is_set():
            self.tick()
            say(f"{sum(self.done.values())} of {len(self._acts)} acts")
            wait = self._steps[0][0] - SYSTEM.monotonic() if self._steps else LOOK_S
            stop.wait(min(max(wait, 0.0), LOOK_S))

    def tick(self) -> None:
        """Do what is due, and look whether somebody has ended."""
        now = SYSTEM.monotonic()
        while self._steps and self._steps[0][0] <= now:
            heapq.heappop(self._steps)[2]()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look_after()

    def _at(self, when: float, step: Step) -> None:
        heapq.heappush(self._steps, (when, next(self._numbers), step))

    def _after(self, seconds: float, step: Step) -> None:
        self._at(SYSTEM.monotonic() + seconds, step)

    def _note(self, mode: str, holder: str, begun: float, over: float, **more: Any) -> None:
        self.hits.append(Hit(mode, holder, begun, over, frozenset(more.get("pids", ()))))
        told = {"mode": mode, "holder": holder, "begun": begun, "over": over, **more}
        with self._log.open("a") as log:
            log.write(json.dumps({**told, "wall": SYSTEM.now()}) + "\n")

    def _someone_leaves(self) -> bool:
        return any(place.condition is Condition.LEAVING for place in self._crew.places)

    # acts

    def _do(self, act: Act) -> None:
        if self._doing[act.mode](act):
            self.done[act.mode] += 1
            self.last_act_at = SYSTEM.monotonic()
        elif act.mode == "hard":
            # All are down at this moment: it is made up for.
            self._after(LOOK_S, lambda: self._do(act))
        else:
            self.passed_over[act.mode] += 1

    def _victim(
        self, act: Act, *conditions: Condition, role: Role = Role.WORKER, pool: str = ""
    ) -> Place | None:
        places = [p for p in self._crew.places if p.role is role and pool in ("", p.pool)]
        for offset in range(len(places)):
            place = places[(act.victim + offset) % len(places)]
            if place.condition in conditions:
                return place
        return None

    def _hard(self, act: Act) -> bool:
        place = self._victim(act, Condition.UP, Condition.FROZEN, Condition.LEAVING)
        if place is not None:
            self._kill(place, act)
        return place is not None

    def _kill_one(self, role: Role, act: Act) -> bool:
        place = self._victim(act, Condition.UP, role=role)
        if place is not None:
            self._kill(place, act)
        return place is not None

    def _kill(self, place: Place, act: Act) -> None:
        frozen = place.condition is Condition.FROZEN
        begun, group = SYSTEM.monotonic(), place.pid
        self._crew.kill(place, alone=act.alone and not frozen)
        if act.alone:
            self._after(ORPHANS_END_WITHIN_S, lambda: self._crew.end_orphans(group))
        over = SYSTEM.monotonic() + (ORPHANS_END_WITHIN_S if act.alone else 0.0)
        self._note(act.mode, place.holder, begun, over, alone=act.alone, group=group)
        self._come_back(place, act)

    def _come_back(self, place: Place, act: Act) -> None:
        if act.renamed and place.role is Role.WORKER:
            place.rename()
        self._after(act.last_s, lambda: self._crew.start(place))

    def _term(self, act: Act) -> bool:
        place = self._victim(act, Condition.UP)
        if place is None:
            return False
        begun = SYSTEM.monotonic()
        self._crew.tell_to_leave(place, LEAVES_WITHIN_S)
        self._note("term", place.holder, begun, begun + LEAVES_WITHIN_S)
        return True

    def _stop(self, act: Act) -> bool:
        place = self._victim(act, Condition.UP)
        if place is None:
            return False
        begun, life = SYSTEM.monotonic(), place.life
        self._crew.freeze(place)
        # It may be killed while it is frozen, and is struck by both.
        self._note("stop", place.holder, begun, begun + act.last_s, seconds=act.last_s)

        def wake() -> None:
            if place.life == life and place.condition is Condition.FROZEN:
                self._crew.wake(place)

        self._after(act.last_s, wake)
        return True

    def _child(self, act: Act) -> bool:
        place = self._victim(act, Condition.UP, pool="prefork")
        children = [] if place is None else self._crew.children(place)
        if place is None or not children:
            return False
        child = children[act.victim % len(children)]
        begun = SYSTEM.monotonic()
        child.kill()
        self._note("child", place.holder, begun, SYSTEM.monotonic(), pids=[child.pid])
        return True

    def _cut(self, act: Act) -> bool:
        place = self._victim(act, Condition.UP)
        if place is None or not self._server.up:
            return False
        ports = self._crew.ports(place)
        chosen = self._rng.sample(ports, max(1, round(act.share * len(ports)))) if ports else []
        begun = SYSTEM.monotonic()
        try:
            with self._server.client() as client, explained(self._server.url):
                for port in chosen:
                    client.client_kill_filter(addr=f"127.0.0.1:{port}")
        except BrokerError:
            return False
        over = SYSTEM.monotonic()
        self._note("cut", place.holder, begun, over, cut=len(chosen), of=len(ports))
        return bool(chosen)

    def _restart(self, act: Act) -> bool:
        if not self._server.up:
            return False
        begun = SYSTEM.monotonic()
        if act.orderly:
            self._server.shut_down()
        else:
            self._server.kill()

        def start() -> None:
            self._server.start()
            self._note("restart", EVERYBODY, begun, SYSTEM.monotonic(), orderly=act.orderly)

        self._after(act.last_s, start)
        return True

    # watching

    def _look_after(self) -> None:
        """Start again who has left as told, and who has ended without being told."""
        for place in self._crew.places:
            if place.condition in (Condition.UP, Condition.LEAVING):
                code = self._crew.ended(place)
                if code is not None:
                    self._has_ended(place, code)
                elif place.condition is Condition.LEAVING:
                    self._insist(place)

    def _has_ended(self, place: Place, code: int) -> None:
        expected = place.condition is not Condition.UP and code in LEFT
        if not (expected or self._struck_at_its_start(place)):
            told = f"{place.holder} ended by itself, and said last:\n{self._crew.tail(place)}"
            self.surprises.append((told, code))
            now = SYSTEM.monotonic()
            self._note("surprise", place.holder, now, now, code=code)
        place.condition = Condition.DOWN
        self._after(0.0, lambda: self._crew.start(place))

    def _struck_at_its_start(self, place: Place) -> bool:
        """Celery ends a worker whose pool process dies before it was ready."""
        since = SYSTEM.monotonic() - STARTS_WITHIN_S
        return any(
            hit.holder == place.holder and hit.mode == "child" and hit.over_at >= since
            for hit in self.hits
        )

    def _insist(self, place: Place) -> None:
        if SYSTEM.monotonic() > place.leaves_by:
            self.surprises.append((f"{place.holder} did not leave", -signal.SIGKILL))
            self._kill(place, Act(0.0, "hard", 0, 0.0))
            self.done["hard"] += 1
