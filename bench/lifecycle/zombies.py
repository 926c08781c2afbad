"""Workers that are green and take no work: how soon they are found, and how soon they work again.

A ward is one worker with a server of its own. The next fault comes when nothing is left of the
last one, which takes two good looks.

False findings are looked for as often as in half an hour, in a minute. A finding is a heartbeat
that says that it takes no work, a transition to ZOMBIE, or a remedy. What cannot be made shorter is
the pause after which a consumer that has a free slot is thought deaf, 5 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from threading import Lock
from typing import Any

from bench.catalog import BenchError, Say
from bench.figure import Figure, Goal
from bench.placement.naps import NOTED, make, nap_of
from bench.process import started
from bench.server import own_server
from bench.shop import unplug
from nxs_tasks import Fleet
from nxs_tasks.clock import SYSTEM, wait_until
from nxs_tasks.control.jobs import lifecycle
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import State
from nxs_tasks.store import connect
from nxs_tasks.store.events import Events

WORKERS = 5
CANCELS, KILLS, UNWATCHES = 10, 10, 2  # for each worker
NODE = "deaf@bench"
STARTING_S, PATIENCE_S, POLL_S = 60.0, 120.0, 0.02
#: Of workers with nothing: how much faster time goes, and for how long, s.
FASTER, BUSY_S = 50.0, 60.0
#: Heartbeats of half an hour.
LOOKS = 360

#: Two servers that are started at the same moment would find the same free port.
STARTING = Lock()

FOUND, WORKING = Goal("value", "<=", 30.0), Goal("value", "<=", 60.0)
NONE = Goal("value", "<=", 0.0)


@dataclass(slots=True)
class Times:
    """Of one kind of fault: s until found, and until a task began."""

    found: list[float] = field(default_factory=list)
    working: list[float] = field(default_factory=list)


class Ward:
    """One worker of a fleet, its server, and who does things to it."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._client = connect(url)
        app = make(url, "NXS")
        self._fleet = Fleet(app, **settings)
        unplug(self._fleet)
        self._store = self._fleet.runtime.store()
        self._plain = make(url, "celery")
        self._nap = nap_of(self._plain)
        self._period = self._fleet.settings.lifecycle_period
        self._looked_at = float("-inf")
        self._number = 0

    def control(self) -> None:
        """What a control worker does at each period."""
        now = SYSTEM.monotonic()
        if now - self._looked_at >= self._period:
            self._looked_at = now
            lifecycle(self._fleet.runtime)

    def look(self) -> Instance | None:
        """Its record."""
        return self._store.snapshot().get(NODE)

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait; the wall time at which it was so. Raises `BenchError` if it never was."""

        def holds() -> bool:
            self.control()
            return condition()

        if not wait_until(holds, PATIENCE_S, poll_s=POLL_S):
            raise BenchError(f"{NODE}: not within {PATIENCE_S:.0f} s: {what}")
        return SYSTEM.now()

    def until_active(self) -> None:
        """Wait until it takes work, and nothing of the last fault is left."""

        def well() -> bool:
            mine = self.look()
            return bool(mine and mine.state is State.ACTIVE and mine.load.consuming)

        self.until(well, "it to be ACTIVE")

    def told(self, event: str) -> list[str]:
        """Reasons of its transitions or records of that kind."""
        return [t.reason for t in Events(self._store).pending_transitions(NODE) if t.event == event]

    def send(self, seconds: float = 0.0) -> int:
        """Send a task to the shared queue; its number."""
        self._number += 1
        self._nap.delay(self._number, seconds)
        return self._number

    def began(self, number: int) -> float | None:
        """When that task began, wall time."""
        for line in self._client.lrange(NOTED, 0, -1):
            n, start, _ = str(line).split()
            if int(n) == number:
                return float(start)
        return None

    # faults

    def cancel(self, turn: int) -> None:
        """Stop it consuming, as an operator may by mistake."""
        own, shared = self._store.keys.own_queue(NODE), self._store.shared_queue
        for queue in ((shared,), (own,), (own, shared))[turn % 3]:
            self._plain.control.cancel_consumer(queue, destination=[NODE])

    def kill(self, turn: int) -> None:
        """Kill the connection by which it takes messages: the one with notices turned on."""
        mine = self.look()
        name = self._store.keys.client_name(NODE, mine.epoch if mine else 0)
        found = [c for c in self._client.client_list() if c["name"] == name and "t" in c["flags"]]
        if not found:
            raise BenchError(f"{NODE}: no connection takes messages")
        for client in found:
            self._client.client_kill_filter(_id=client["id"])

    def unwatch(self, turn: int) -> None:
        """Have its event loop watch that connection no more."""
        self._plain.control.broadcast("unwatch", destination=[NODE])

    def suffer(self, fault: Callable[[int], None], turn: int, times: Times, *, seen: bool) -> None:
        """One fault, from its beginning until nothing is left of it."""
        self.until_active()
        cured = len(self.told("healing"))
        at = SYSTEM.now()
        fault(turn)
        # Remote control has come round, or else the task would be taken before the fault.
        self.until(lambda: SYSTEM.now() - at > 0.3, "the fault")
        number = self.send()
        if seen:

            def is_found() -> bool:
                mine = self.look()
                return mine is not None and mine.load.consuming is False

            times.found.append(self.until(is_found, "it to be found") - at)
        self.until(lambda: self.began(number) is not None, "work")
        times.working.append((self.began(number) or at) - at)
        if seen:

            def is_over() -> bool:
                new = self.told("healing")[cured:]
                return any("takes work again" in reason for reason in new)

            self.until(is_over, "its recovery")


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    say(f"zombies: {WORKERS} workers, {CANCELS} + {KILLS} + {UNWATCHES} faults each")
    with ThreadPoolExecutor(WORKERS) as pool:
        wards = [pool.submit(_one_ward) for _ in range(WORKERS)]
        known = [ward.result() for ward in wards]
    for kind in ("cancelled", "unwatched"):
        of_kind = [times[kind] for times in known]
        found = [s for times in of_kind for s in times.found]
        working = [s for times in of_kind for s in times.working]
        yield _figure(f"{kind}: found, worst of {len(found)}", max(found), found, FOUND)
        yield _figure(f"{kind}: working, worst of {len(working)}", max(working), working, WORKING)
        yield _figure(f"{kind}: working, median", median(working), working)
    ours = [s for times in known for s in times["killed"].working]
    say(f"zombies: the same {KILLS} kills for stock Celery")
    theirs = _stock_kills()
    yield _figure(f"killed: working, worst of {len(ours)}", max(ours), ours, WORKING)
    yield Figure(
        bench="lifecycle",
        metric="killed: working, median",
        value=median(ours),
        unit="s",
        peer="celery",
        peer_value=median(theirs),
        ratio=median(ours) / median(theirs),
        least=min(ours),
        most=max(ours),
    )
    for what, nap_s in (("long", BUSY_S + 60.0), ("short", 0.02)):
        say(f"zombies: slots taken by {what} tasks")
        looks, found_wrongly = _busy(nap_s)
        metric = f"{what} tasks in all slots: false findings in {looks} looks"
        yield _figure(metric, found_wrongly, [found_wrongly], NONE, unit="findings")


def _figure(
    metric: str, value: float, of: Sequence[float], goal: Goal | None = None, unit: str = "s"
) -> Figure:
    return Figure(
        bench="lifecycle",
        metric=metric,
        value=value,
        unit=unit,
        least=min(of),
        most=max(of),
        goal=goal,
    )


@contextmanager
def _ward(**settings: Any) -> Iterator[Ward]:
    with ExitStack() as stack:
        with STARTING:
            url = stack.enter_context(own_server())
        env = {f"NXS_{name.upper()}": str(value) for name, value in settings.items()}
        app = "bench.lifecycle.deafened"
        worker = stack.enter_context(started(app, NODE, 2, url, fleet=True, **env))
        ward = Ward(url, **settings)
        try:
            ward.until_active()
            yield ward
        finally:
            # Some tests of the sort end with tasks that still run.
            worker.kill()


def _one_ward() -> dict[str, Times]:
    times = {kind: Times() for kind in ("cancelled", "killed", "unwatched")}
    with _ward() as ward:
        before = ward.look()
        for turn in range(CANCELS):
            ward.suffer(ward.cancel, turn, times["cancelled"], seen=True)
        for turn in range(KILLS):
            ward.suffer(ward.kill, turn, times["killed"], seen=False)
        for turn in range(UNWATCHES):
            ward.suffer(ward.unwatch, turn, times["unwatched"], seen=True)
        after = ward.look()
        if before is None or after is None or after.identity != before.identity:
            raise BenchError(f"{NODE}: it was started anew meanwhile")
    return times


def _stock_kills() -> list[float]:
    took = []
    with ExitStack() as stack:
        url = stack.enter_context(own_server())
        client, nap = connect(url), nap_of(make(url, "celery"))
        app = "bench.placement.napper"
        worker = stack.enter_context(started(app, NODE, 2, url, fleet=False, BENCH_KIND="celery"))

        def takers() -> list[Any]:
            return [c for c in client.client_list() if c["cmd"].lower() == "brpop"]

        try:
            for number in range(KILLS):
                if not wait_until(lambda: bool(takers()), STARTING_S, poll_s=POLL_S):
                    raise BenchError("stock Celery: it does not take messages")
                at = SYSTEM.now()
                client.client_kill_filter(_id=takers()[0]["id"])
                wait_until(lambda at=at: SYSTEM.now() - at > 0.3, 1.0)  # type: ignore[misc]
                nap.delay(number, 0.0)
                if not wait_until(
                    lambda number=number: client.llen(NOTED) > number,  # type: ignore[misc]
                    PATIENCE_S,
                    poll_s=POLL_S,
                ):
                    raise BenchError("stock Celery: it works no more")
                took.append(float(str(client.lindex(NOTED, -1)).split()[1]) - at)
        finally:
            worker.kill()
    return took


def _busy(nap_s: float) -> tuple[int, int]:
    """Looks at a worker whose slots are always taken, and how many found something."""
    quick = {
        "heartbeat_period": 5.0 / FASTER,
        "join_period": 5.0 / FASTER,
        "lifecycle_period": 5.0 / FASTER,
        "heal_after": ",".join(str(s / FASTER) for s in (5.0, 10.0, 20.0, 30.0, 50.0)),
    }
    with _ward(**quick) as ward:
        for _ in range(2 if nap_s > 1 else int(2 * BUSY_S / nap_s)):
            ward.send(nap_s)
        first = ward.look()
        seen: dict[float, bool] = {}
        end = SYSTEM.monotonic() + BUSY_S

        def look() -> bool:
            mine = ward.look()
            if mine is not None and mine.beat_at is not None:
                seen[mine.beat_at] = mine.load.consuming is False
            return SYSTEM.monotonic() >= end

        ward.until(look, "the end")
        last = ward.look()
        if first is None or last is None or first.epoch != last.epoch:
            raise BenchError(f"{NODE}: it was given up meanwhile")
        if len(seen) < LOOKS:
            raise BenchError(f"{NODE}: {len(seen)} looks, and not {LOOKS}")
        return len(seen), sum(seen.values()) + len(ward.told("healing")) + len(ward.told("deaf"))
