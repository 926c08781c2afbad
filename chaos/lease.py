"""A lease says that a process lives, and nothing of how long a task takes.

First: tasks that take ten times as long as the lease, on healthy workers, start once each. Then
zombies: workers are frozen until what they ran runs elsewhere, and woken. What they still do then
must not count: the result stays that of the execution whose message was acknowledged, and a lock
that has gone to another task stays that task's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figure import Figure, Goal
from chaos.commits import Commits
from chaos.crew import Place, worker_place
from chaos.ledger import END, START, Line
from chaos.side import nxs_side
from chaos.stage import KEYS, Say, Stage
from nxs_tasks.clock import wait_until
from nxs_tasks.store.message import UNIQUE_HEADER

#: An instance that is silent for so long is GONE, whether it is connected or not, s.
LEASE_S = 3.0
QUICK = {
    "NXS_HEARTBEAT_PERIOD": "0.5",
    "NXS_JOIN_PERIOD": "0.2",
    "NXS_GONE_AFTER": "1",
    "NXS_SILENT_AFTER": "1.5",
    "NXS_ZOMBIE_AFTER": "2",
    "NXS_EVICT_AFTER": f"{LEASE_S:g}",
    "NXS_LIFECYCLE_PERIOD": "0.5",
    "NXS_BEAT_LEASE": "3",
}
LONG_S = 10 * LEASE_S
#: What a zombie runs; it is frozen meanwhile.
TASK_S = 8.0
#: Who has the lock of a zombie's task then holds it for so long, s: longer than anybody looks.
SUCCESSOR_S = 600.0
#: A commit of a woken zombie would come within this, s.
LOOK_S = 3.0
#: Pool, and whether only the main process is frozen: its pool then runs on.
KINDS = (("threads", False), ("prefork", False), ("prefork", True))


@dataclass(slots=True)
class Zombie:
    """One worker that is frozen and woken, and the task that it ran."""

    place: Place
    alone: bool
    late: bool  # woken when its task is done elsewhere, not while it runs there
    holder: str = ""

    @property
    def task(self) -> str:
        """The task that it runs."""
        return f"task-of-{self.place.name}"

    @property
    def successor(self) -> str:
        """The task that has the lock next."""
        return f"successor-of-{self.place.name}"

    @property
    def lock(self) -> str:
        """Key of the lock of both."""
        return KEYS.unique(self.place.name)


def run(options: argparse.Namespace, folder: Path, say: Say) -> Iterator[Figure]:
    """All figures. Raises `StageError`."""
    big = [worker_place(f"w{n}", "threads", options.slots) for n in range(options.workers)]
    zombies = _zombies(options.rounds)
    stage = Stage(nxs_side(QUICK), [*big, *(z.place for z in zombies)], folder)
    with stage:
        stage.start([*big, *stage.control])
        stage.until_active(big)
        yield from _long(stage, options.tasks, say)
        say(f"starting {len(zombies)} workers that will be frozen")
        stage.start([z.place for z in zombies])
        stage.until_active(z.place for z in zombies)
        with Commits(stage.server) as commits:
            yield from _zombie_figures(stage, zombies, commits, say)


# long tasks


def _long(stage: Stage, tasks: int, say: Say) -> Iterator[Figure]:
    ids = {f"long-{n}" for n in range(tasks)}
    stage.send(dict.fromkeys(ids, (LONG_S,)))

    def done() -> bool:
        ended = sum(line.kind == END for line in stage.lines)
        say(f"{ended} of {tasks} tasks of {LONG_S:.0f} s are done")
        return ids <= {line.task for line in stage.lines if line.kind == END}

    stage.until(
        done, f"{tasks} tasks of {LONG_S:.0f} s are done", 60.0 + LONG_S * (2 + tasks / 100)
    )
    starts = sum(line.kind == START for line in stage.lines)
    metric = f"starts of {tasks} tasks of {LONG_S / LEASE_S:.0f} leases"
    yield Figure(
        bench="long", metric=metric, value=starts, unit="starts", goal=Goal("value", "<=", tasks)
    )


# zombies


def _zombies(rounds: int) -> list[Zombie]:
    return [
        Zombie(worker_place(f"z{n}-{pool}", pool, 1), alone, late=bool(n % 2))
        for n, (pool, alone) in enumerate(kind for kind in KINDS for _ in range(2 * rounds))
    ]


def _zombie_figures(
    stage: Stage, zombies: list[Zombie], commits: Commits, say: Say
) -> Iterator[Figure]:
    _give_work(stage, zombies)
    for zombie in zombies:
        stage.crew.freeze(zombie.place, alone=zombie.alone)
    freed = _wake_all(stage, zombies, say)
    say("looking for what the woken still do")
    stage.until(lambda: all(_is_over(stage, z) for z in zombies), "what the woken ran is over")
    stale = _stale(stage, zombies, commits)
    freed |= _freed(stage, zombies)
    yield _none(f"stale commits of {len(zombies)} woken", len(stale))
    late = sum(z.late for z in zombies)
    yield _none(f"foreign locks freed of {late}", len(freed))
    kept = sum(commits.last(z.task) in _nonces(stage, z, own=False) for z in zombies)
    yield Figure(
        bench="long",
        metric="results of who finished it",
        value=kept,
        unit="results",
        goal=Goal("value", ">=", len(zombies)),
    )


def _give_work(stage: Stage, zombies: list[Zombie]) -> None:
    with stage.server.client() as client:
        for zombie in zombies:
            zombie.holder = zombie.place.holder
            client.set(zombie.lock, zombie.task)
            headers = {UNIQUE_HEADER: zombie.place.name}
            stage.hand(zombie.place, {zombie.task: (TASK_S,)}, headers=headers, ignore_result=False)
    stage.until(lambda: all(_of(stage, START, z, own=True) for z in zombies), "each runs its task")


def _wake_all(stage: Stage, zombies: list[Zombie], say: Say) -> set[str]:
    """Wake each at its time; returns whose lock was freed under another."""
    frozen = list(zombies)

    def step() -> bool:
        for zombie in list(frozen):
            if _is_time(stage, zombie):
                stage.crew.wake(zombie.place)
                frozen.remove(zombie)
        say(f"{len(frozen)} are frozen")
        return not frozen

    stage.until(step, "what the frozen ran is done elsewhere")
    return _freed(stage, zombies)


def _is_time(stage: Stage, zombie: Zombie) -> bool:
    if not zombie.late:
        return bool(_of(stage, START, zombie, own=False))
    if not _of(stage, END, zombie, own=False):
        return False
    with stage.server.client() as client:
        owner = client.get(zombie.lock)
        if owner is None:
            client.set(zombie.lock, zombie.successor)
            headers = {UNIQUE_HEADER: zombie.place.name}
            stage.send({zombie.successor: (SUCCESSOR_S,)}, headers=headers)
    return any(line.task == zombie.successor for line in stage.lines)


def _of(stage: Stage, kind: str, zombie: Zombie, *, own: bool) -> list[Line]:
    """Lines of its task: its own, or those of whoever runs it elsewhere."""
    return [
        line
        for line in stage.lines
        if line.kind == kind and line.task == zombie.task and (line.holder == zombie.holder) is own
    ]


def _nonces(stage: Stage, zombie: Zombie, *, own: bool) -> set[str]:
    return {line.nonce for line in _of(stage, START, zombie, own=own)}


def _is_over(stage: Stage, zombie: Zombie) -> bool:
    """Whether a woken zombie's own run has ended, or its pool process has."""
    (start,) = _of(stage, START, zombie, own=True)
    return bool(_of(stage, END, zombie, own=True)) or not psutil.pid_exists(start.pid)


def _stale(stage: Stage, zombies: list[Zombie], commits: Commits) -> set[str]:
    """Tasks of which somebody stored another result than who had the message: also a failure."""

    def found() -> set[str]:
        return {z.task for z in zombies if commits.of(z.task) - _nonces(stage, z, own=False)}

    wait_until(lambda: bool(found()), LOOK_S)
    return found()


def _freed(stage: Stage, zombies: list[Zombie]) -> set[str]:
    """Tasks that have lost their lock although they still run."""
    with stage.server.client() as client:
        late = (z for z in zombies if z.late)
        return {z.successor for z in late if client.get(z.lock) != z.successor}


def _none(metric: str, value: int) -> Figure:
    return Figure(bench="long", metric=metric, value=value, unit="", goal=Goal("value", "<=", 0))
