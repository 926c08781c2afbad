"""Processes that submit, are killed and drain, while the server is frozen, killed and thawed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nxs_tasks.clock import wait_until
from nxs_tasks.store.unique import UniqueKeys
from nxs_tasks.submission.batches import counts
from nxs_tasks.submission.spool import Spool
from tests.conftest import Server, new_store

#: Longest wait for a process of ours. A deadline, not an expectation.
PATIENCE_S = 120.0


class Player:
    """A process of `submitting.py`, and what it has told."""

    def __init__(self, role: str, *arguments: object) -> None:
        argv = [sys.executable, "-m", "tests.integration.submitting", role, *map(str, arguments)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(line.strip())

    @property
    def ids(self) -> list[str]:
        return [line for line in self.told if line != "waits"]

    @property
    def done(self) -> bool:
        return "waits" in self.told

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def end(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Stage:
    """A server of its own, a state directory, and the processes on them."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.state = directory / "state"
        self.spool = Spool(self.state / "spool-default.db", 64)
        self._players: list[Player] = []

    def start(self, role: str, *arguments: object) -> Player:
        player = Player(role, self.server.url, self.state, *arguments)
        self._players.append(player)
        return player

    def waiting(self) -> int:
        return sum(counts(self.spool).values()) if self.spool.exists() else 0

    def sent(self) -> list[str]:
        store = new_store(self.server.url)
        raws: Any = store.client.lrange("celery", 0, -1)
        return [json.loads(raw)["headers"]["id"] for raw in reversed(raws)]

    def end(self) -> None:
        for player in self._players:
            player.end()
        self.spool.close()


@pytest.fixture
def stage(own_server: Server, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(own_server, tmp_path)
    yield made
    made.end()


def until(condition: Any) -> None:
    assert wait_until(condition, PATIENCE_S)


def test_a_submitter_that_is_killed_loses_nothing_that_it_was_told(stage: Stage) -> None:
    stage.server.freeze()
    players = [stage.start("submit", 1_000_000) for _ in range(3)]
    until(lambda: all(len(p.told) >= 40 for p in players))
    for player in players:
        player.kill()
    stage.server.thaw()
    told = [id_ for player in players for id_ in player.ids]
    assert stage.start("drain", 500).wait() == 0
    sent = stage.sent()
    assert len(set(sent)) == len(sent)
    assert set(told) <= set(sent)
    # What was kept and could not be told any more.
    assert len(sent) <= len(told) + len(players)
    for player in players:
        assert [id_ for id_ in sent if id_ in set(player.ids)] == player.ids


def test_a_drainer_that_is_killed_doubles_nothing(stage: Stage) -> None:
    stage.server.kill()
    submitter = stage.start("submit", 1200)
    until(lambda: submitter.done)
    submitter.kill()
    stage.server.start()
    for goal in (100, 400, 900):
        drainer = stage.start("drain", 7)
        until(lambda d=drainer, g=goal: len(stage.sent()) >= g or not d.alive)
        drainer.kill()
    assert stage.start("drain", 7).wait() == 0
    assert (stage.sent(), stage.waiting()) == (submitter.ids, 0)


def test_submitters_and_drainers_while_the_server_freezes_and_dies(stage: Stage) -> None:
    players = [stage.start("submit", 1500) for _ in range(3)]
    until(lambda: all(p.told for p in players))
    pause = threading.Event()
    for turn in itertools.count():
        if all(p.done for p in players) and turn >= 6:
            break
        assert turn < PATIENCE_S
        if turn % 2:
            stage.server.freeze()
            pause.wait(0.9)
            stage.server.thaw()
        else:
            stage.server.kill()
            pause.wait(0.3)
            stage.server.start()
        pause.wait(0.4)
    until(lambda: not stage.waiting())
    for player in players:
        player.go()
    assert [player.wait() for player in players] == [0, 0, 0]
    told = [id_ for player in players for id_ in player.ids]
    sent = stage.sent()
    assert len(told) == 4500
    assert (len(sent), set(sent)) == (len(told), set(told))


class TestOneKey:
    """A hundred threads of ten processes submit one key at the same moment."""

    def start(self, stage: Stage, deadline_s: float) -> Player:
        player = stage.start("unique", "nightly", 10, 10, deadline_s)
        until(lambda: player.told == ["ready"])
        return player

    def told(self, player: Player) -> list[tuple[str, str]]:
        return [(whose, id_) for whose, _, id_ in (line.partition(" ") for line in player.told[1:])]

    def test_one_of_them_is_a_task_and_the_others_are_told_which(self, stage: Stage) -> None:
        player = self.start(stage, deadline_s=60.0)
        player.go()
        assert player.wait() == 0
        told = self.told(player)
        [sent] = stage.sent()
        assert len(told) == 100
        assert [id_ for whose, id_ in told if whose == "mine"] == [sent]
        assert {id_ for _, id_ in told} == {sent}
        assert UniqueKeys(new_store(stage.server.url)).owner("nightly") == sent

    def test_also_while_the_server_is_frozen(self, stage: Stage) -> None:
        player = self.start(stage, deadline_s=0.5)
        stage.server.freeze()
        player.go()
        until(lambda: len(player.told) == 101)
        stage.server.thaw()
        assert player.wait() == 0
        assert stage.start("drain", 500).wait() == 0
        [sent] = stage.sent()
        assert (stage.waiting(), sent in {id_ for _, id_ in self.told(player)}) == (0, True)
        assert UniqueKeys(new_store(stage.server.url)).owner("nightly") == sent
