"""Real beats of which the leader is killed, or frozen and woken. Is a tick doubled, or missed?"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.lifecycle.ticks import MINUTE, SECOND, Tally, of_interval, of_minutes
from bench.server import own_server
from chaos.forkserver import ForkServer
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.settings import Settings
from nxs_tasks.store import Keys, connect

BEATS = 4
STRIKES = 100
SEED = 5
#: A leader is struck so long after it was found to lead, s.
LED_S = (0.2, 3.0)
#: It is frozen for so long, s: some wake before their lease is over, some when others lead.
FROZEN_S = (0.5, 14.0)
#: One that has ended is started again after so long, s.
RESTART_S = 1.0
#: Longest wait for a leader, s. A deadline, not an expectation.
PATIENCE_S = 120.0
NXS, REDBEAT = "NXS", "RedBeat"
#: Periods of the control jobs by the name of their task, s.
JOBS = {
    f"nxs.control.{name}": float(getattr(Settings(), f"{name}_period"))
    for name in ("lifecycle", "record", "rebalance")
}
NONE = Goal("value", "<=", 0.0)
IN_TIME = Goal("value", "<=", 15.0)


class Ledger(threading.Thread):
    """Takes what arrives out of the queues, and notes when. Knows nothing of who has sent it."""

    def __init__(self, url: str) -> None:
        super().__init__(name="ledger", daemon=True)
        self._client: Any = connect(url, timeout_s=30.0)
        self._over = threading.Event()
        self.arrived: dict[str, list[float]] = {}
        self.ids: list[str] = []

    def run(self) -> None:
        """Until stopped."""
        while not self._over.is_set():
            found = self._client.blpop(["celery", "nxs.control"], timeout=1)
            if found is not None:
                headers = json.loads(found[1])["headers"]
                self.arrived.setdefault(headers["task"], []).append(SYSTEM.now())
                self.ids.append(headers["id"])

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self.is_alive():
            self.join()
        self._client.close()


class Beats:
    """The beats of one side, and who strikes the one that leads."""

    def __init__(self, side: str, url: str, folder: Path, stack: ExitStack) -> None:
        self.side = side
        self._client: Any = connect(url)
        self._folder = folder
        env = {"BENCH_BROKER": url, "BENCH_SIDE": side, "NXS_STATE_DIR": str(folder)}
        log = folder / "forks.log"
        self._forks = stack.enter_context(ForkServer("bench.lifecycle.beats", env, log))
        self._random = Random(SEED)
        self._started = 0
        self._logs: dict[int, Path] = {}
        self._frozen: dict[int, float] = {}  # pid: until when
        self._ended: list[float] = []  # when they may be started again
        self.strikes = {SIGKILL: 0, SIGSTOP: 0}
        self.surprises = 0  # ended without being struck
        self.without_s: list[float] = []  # from a strike to the next leader
        self.ledger = Ledger(url)

    def start(self) -> None:
        """All of them."""
        for _ in range(BEATS):
            self._start_one()
        self.ledger.start()

    def _start_one(self) -> None:
        self._started += 1
        log = self._folder / f"beat-{self._started}.log"
        argv = ["beat", "--pidfile=", "-l", "INFO"]
        pid = self._forks.fork("chaos.forkserver:run_celery", [argv], log)
        self._logs[pid] = log

    def leader(self) -> int | None:
        """The pid of the one that leads and is not frozen."""
        if self.side == NXS:
            found = self._client.get(Keys("default").beat_lease("leaders"))
            pid = int(found.split("/")[1]) if found else None
        else:
            holding = [p for p, log in self._logs.items() if "Acquired lock" in log.read_text()]
            pid = holding[-1] if holding else None
        return pid if pid in self._logs and pid not in self._frozen else None

    def look_after(self) -> None:
        """Wake whose time has come, and start again what has ended."""
        now = SYSTEM.monotonic()
        for pid, until in list(self._frozen.items()):
            if until <= now:
                del self._frozen[pid]
                os.kill(pid, SIGCONT)
        for pid in [p for p in self._logs if p not in self._frozen]:
            if self._forks.exit_code(pid) is not None:
                self.surprises += 1
                self._forget(pid)
        due = [at for at in self._ended if at <= now]
        self._ended = [at for at in self._ended if at > now]
        for _ in due:
            self._start_one()

    def _forget(self, pid: int) -> None:
        del self._logs[pid]
        self._ended.append(SYSTEM.monotonic() + RESTART_S)

    def strike(self, number: int) -> None:
        """Wait until one has led for a while, and kill or freeze it."""
        least = self._random.uniform(*LED_S)
        frozen_s = self._random.uniform(*FROZEN_S)
        struck_at = since = SYSTEM.monotonic()
        leader: int | None = None
        found = False

        def has_led() -> bool:
            nonlocal leader, since, found
            self.look_after()
            now, before = SYSTEM.monotonic(), leader
            leader = self.leader()
            if leader is None or leader != before:
                since = now
            if leader is not None and number and not found:
                found = True
                self.without_s.append(now - struck_at)
            return leader is not None and now - since >= least

        if not wait_until(has_led, PATIENCE_S, 0.05) or leader is None:
            raise BenchError(f"{self.side}: nobody leads for {PATIENCE_S:.0f} s")
        pid: int = leader
        kind = SIGKILL if self._random.random() < 0.5 else SIGSTOP
        self.strikes[kind] += 1
        if kind is SIGKILL:
            self._forks.kill(pid)
            self._forget(pid)
        else:
            os.kill(pid, SIGSTOP)
            self._frozen[pid] = SYSTEM.monotonic() + frozen_s

    def calm_down(self) -> None:
        """Let everybody wake, and some ticks come."""
        seen = len(self.ledger.arrived.get(SECOND, ()))

        def goes_on() -> bool:
            self.look_after()
            now = len(self.ledger.arrived.get(SECOND, ()))
            return not self._frozen and now > seen + 3

        if not wait_until(goes_on, PATIENCE_S, 0.05):
            raise BenchError(f"{self.side}: no tick comes any more, see {self._folder}")

    def run(self, strikes: int, say: Say) -> None:
        """The whole life of this side."""
        try:
            self.start()
            for number in range(strikes):
                self.strike(number)
                say(f"{self.side}: leader {number + 1} of {strikes} is struck")
            self.calm_down()
        finally:
            self.ledger.stop()

    def tally(self) -> Tally:
        """Of the entries that both sides have."""
        arrived = self.ledger.arrived
        return of_interval(arrived[SECOND], 1.0) + of_minutes(arrived.get(MINUTE, ()))


def run(say: Say, strikes: int = STRIKES) -> Iterator[Figure]:
    """All figures; of RedBeat only where it is installed."""
    sides = [NXS]
    with suppress(ImportError):
        import_module("redbeat")
        sides.append(REDBEAT)
    done = list(_all(sides, strikes, say))
    for beats in done:
        yield from _figures(beats, done)


def _all(sides: Sequence[str], strikes: int, say: Say) -> list[Beats]:
    """Both sides at the same time: what disturbs the machine disturbs both."""
    failures: list[BaseException] = []
    with ExitStack() as stack:
        done = []
        for side in sides:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            url = f"{stack.enter_context(own_server())}/0"
            done.append(Beats(side, url, folder, stack))

        def live(beats: Beats) -> None:
            try:
                beats.run(strikes, say)
            except Exception as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=live, args=(beats,), daemon=True) for beats in done]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise BenchError(str(failures[0]))
    return done


def _figures(beats: Beats, done: Sequence[Beats]) -> Iterator[Figure]:
    side, ours = beats.side, beats.side == NXS
    tally, ids = beats.tally(), beats.ledger.ids
    kills, freezes = beats.strikes[SIGKILL], beats.strikes[SIGSTOP]

    def figure(metric: str, value: float, unit: str, goal: Goal | None = None) -> Figure:
        return Figure(
            bench="lifecycle",
            metric=f"leaders, {side}: {metric}",
            value=value,
            unit=unit,
            goal=goal if ours else None,
        )

    yield figure("kills", kills, "")
    yield figure("freezes", freezes, "")
    yield figure("ticks", tally.ticks, "")
    yield figure("doubled", tally.doubled, "", NONE)
    yield figure("missed", tally.missed, "", NONE)
    yield figure("latest", tally.latest_s, "s", IN_TIME)
    yield figure("closest", tally.closest_s, "s")
    yield figure("sent twice", len(ids) - len(set(ids)), "", NONE)
    yield figure("without a leader", median(beats.without_s or [0.0]), "s")
    yield figure("ended by itself", beats.surprises, "")
    if ours:
        arrived = beats.ledger.arrived
        jobs = sum((of_interval(arrived.get(n, ()), s) for n, s in JOBS.items()), Tally())
        yield figure("control ticks", jobs.ticks, "")
        yield figure("control ticks doubled", jobs.doubled, "", NONE)
        yield figure("control ticks missed", jobs.missed, "", NONE)
