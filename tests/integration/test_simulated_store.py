"""The simulated records of the bench `lifecycle` and the store's own scripts, side by side."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin

from bench.lifecycle.fleet import SETTINGS
from bench.lifecycle.records import Records
from nxs_tasks.errors import NxsError, Stale
from nxs_tasks.model.decision import Forget, Transition, Withhold
from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.transitions import TRANSITIONS, is_loss
from nxs_tasks.store import FleetStore, Keys, Wire
from nxs_tasks.store.events import Events

PROFILE = Profile(tasks=frozenset(), queues=frozenset({"celery"}))
NAMES = ("w1", "w2", "w3")
LOADS = (
    Load(slots=4, consuming=True),
    Load(slots=4, consuming=True),
    Load(slots=4, consuming=False),
    Load(slots=4, consuming=True, unhealthy="2 of 10 tasks failed"),
    Load(slots=4, progress="loading 40 %"),
)
#: What only the real store has: profiles, outcomes, texts for people.
ELSEWHERE: dict[str, Any] = {"profile": None, "verdict": "", "connections": None}


class Both:
    """One real store whose server's clock is set by hand, and its simulation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rng: Random) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(server_mixin, "time", SimpleNamespace(time=lambda: self.now))
        client = fakeredis.FakeRedis(
            server=fakeredis.FakeServer(), decode_responses=True, encoding_errors="surrogateescape"
        )
        self.real = FleetStore(client, Keys("default"), Wire(), "celery", "redis://fakeredis")
        self.simulated = Records(SETTINGS)
        self.rng = rng
        self._processes = 0

    def step(self) -> tuple[str, str]:
        """One operation on both; what it was, and how it ended."""
        self.now = round(self.now + self.rng.choice((0.5, 4.0, 9.0, 20.0, 400.0)), 3)
        name = self.rng.choice(NAMES)
        kinds = ("join", "return", "beat", "beat", "beat", "beat", "move", "move", "withhold")
        kind = self.rng.choice((*kinds, "forget", "observe", "doubt"))
        real, simulated = (self._try(kind, name, here) for here in self._choose(kind, name))
        assert real == simulated, kind
        return kind, str(real)

    def _try(self, kind: str, name: str, call: Any) -> object:
        try:
            return call()
        except NxsError as error:
            return type(error).__name__

    def _choose(self, kind: str, name: str) -> tuple[Any, Any]:
        return getattr(self, f"_{kind}")(name)  # type: ignore[no-any-return]

    def _join(self, name: str) -> tuple[Any, Any]:
        self._processes += 1
        return self._joining(name, f"host/{self._processes}", 0)

    def _return(self, name: str) -> tuple[Any, Any]:
        known = self.simulated.by_name.get(name)
        identity = known.identity if known and self.rng.random() < 0.7 else "host/0"
        return self._joining(
            name, identity, (known.epoch if known else 1) + self.rng.choice((0, 1))
        )

    def _joining(self, name: str, identity: str, keep: int) -> tuple[Any, Any]:
        def real() -> int:
            return self.real.join(
                *(name, identity, PROFILE),
                seen_epoch=self.real.epoch(name),
                keep_epoch=keep,
                refused_s=SETTINGS.join_refused,
            )

        return real, lambda: self.simulated.join(self.now, name, identity, keep)

    def _epoch(self, name: str) -> int:
        known = self.simulated.by_name.get(name)
        return (known.epoch if known else 1) + (self.rng.random() < 0.1)

    def _beat(self, name: str) -> tuple[Any, Any]:
        epoch, load = self._epoch(name), self.rng.choice(LOADS)
        last = self.rng.random() < 0.05

        def real() -> State | None:
            known: dict[str, Any] = {"succeeded": 0, "failed": 0, "window_days": 7, "last": last}
            gap = SETTINGS.longest_gap
            try:
                return self.real.heartbeat(name, epoch, load, longest_gap_s=gap, **known)[0]
            except Stale:
                return None

        return real, lambda: self.simulated.heartbeat(self.now, name, epoch, load, last=last)

    def _found(self, name: str) -> dict[str, Any]:
        known = self.simulated.by_name.get(name)
        state = known.state if known and self.rng.random() < 0.9 else self.rng.choice(list(State))
        told = {"instance": name, "epoch": self._epoch(name), "source": state}
        return {**told, "reason": f"because {self.rng.random()}"}

    def _move(self, name: str) -> tuple[Any, Any]:
        found = self._found(name)
        events = [e for s, e in TRANSITIONS if s is found["source"]]
        if found["source"] is State.JOINING:
            events += 3 * [Event.CONFIRMED, Event.JOIN_TIMED_OUT]
        event = self.rng.choice(events)
        source = found["source"]
        move = Transition(
            **found, event=event, target=TRANSITIONS[source, event], loss=is_loss(source, event)
        )
        return self._both(self.real.transition, move)

    def _withhold(self, name: str) -> tuple[Any, Any]:
        known = self.simulated.by_name.get(name)
        before = known.level if known and self.rng.random() < 0.8 else 2
        at = round(self.now - self.rng.choice((0.0, 100.0)), 3)
        return self._both(
            self.real.withhold,
            Withhold(
                **self._found(name),
                level=before + 1,
                level_before=before,
                loss_at=at,
                until=self.rng.choice((0.0, at + 60.0)),
            ),
        )

    def _forget(self, name: str) -> tuple[Any, Any]:
        decision = Forget(**self._found(name))
        return self._both(lambda d: self.real.forget(d, 3600), decision)

    def _both(self, real: Any, decision: Any) -> tuple[Any, Any]:
        def act() -> None:
            real(decision)

        return act, lambda: self.simulated.apply(self.now, decision)

    def _observe(self, name: str) -> tuple[Any, Any]:
        def rounded(seen: tuple[float, ...]) -> list[float]:
            return [round(seconds, 3) for seconds in seen]

        simulated = self.simulated
        return (
            lambda: rounded(self.real.observe(15.0)),
            lambda: rounded(simulated.observe(self.now, 15.0)),
        )

    def _doubt(self, name: str) -> tuple[Any, Any]:
        return self.real.doubt, self.simulated.doubt

    # what both hold

    def instances(self) -> tuple[list[Instance], list[Instance]]:
        """Of the real store, and of the simulated one."""
        found = (self.real.snapshot().instances, self.simulated.snapshot(self.now).instances)
        real, simulated = ([replace(i, **ELSEWHERE) for i in side] for side in found)
        return real, simulated


def test_the_same_operations_make_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = set()
    for seed in range(3):
        both = Both(monkeypatch, Random(seed))
        for n in range(300):
            ends.add(both.step())
            if n % 5 == 4:
                real, simulated = both.instances()
                assert real == simulated
        assert streamed(both.real) == [
            (m.name, m.epoch, m.source, m.target, m.event) for m in both.simulated.moves
        ]
    done = {kind for kind, how in ends if how == "None"}
    assert done >= {"move", "withhold", "forget"}, "each was done, and refused too"
    assert {(kind, "Stale") for kind in ("move", "withhold", "forget")} <= ends
    assert {("join", "JoinRefused"), ("return", "NameTaken"), ("beat", "None")} <= ends


def streamed(store: FleetStore) -> list[tuple[Any, ...]]:
    """Transitions as the scripts recorded them."""
    return [
        (t.instance, t.epoch, t.source or None, t.target, t.event)
        for t in Events(store).pending_transitions()
        if t.event != "withheld"
    ]
