"""What the chaos harness stands on: forked processes, and the look into the broker."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from celery import Celery

from chaos.forkserver import ForkServer
from chaos.remains import key_families, remains, spooled, total
from nxs_tasks.clock import repeat, wait_until
from nxs_tasks.store import Keys, connect

SOON_S = 20.0


# --- forked processes --------------------------------------------------------------------------


def write_and_leave(path: str, text: str, code: int) -> None:
    """Runs in a forked child."""
    Path(path).write_text(f"{text} {os.environ['SAYS']} {os.getpgid(0) == os.getpid()}")
    atexit.register(lambda: Path(path).with_suffix(".end").touch())
    raise SystemExit(code)


def wait_with_a_child(path: str) -> None:
    """Runs in a forked child."""
    child = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(child.pid))
    repeat(lambda: None, 1.0)


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[ForkServer]:
    env = {"CHAOS_BROKER": "redis://127.0.0.1:1/0"}
    with ForkServer("chaos.tasks", env, tmp_path / "forkserver.log") as forks:
        yield forks


def call(function: str) -> str:
    return f"{__name__}:{function}"


def gone(pid: int) -> bool:
    """Also who has ended and was not asked for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def started(forks: ForkServer, tmp_path: Path) -> tuple[int, int]:
    """A child that waits, and its child."""
    written = tmp_path / "pid"
    pid = forks.fork(call("wait_with_a_child"), [str(written)], tmp_path / "log")
    assert wait_until(lambda: written.exists() and bool(written.read_text()), SOON_S)
    return pid, int(written.read_text())


def test_a_child_gets_its_arguments_and_environment_and_its_end_is_told(
    forks: ForkServer, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    arguments = [str(written), "hello", 3]
    pid = forks.fork(call("write_and_leave"), arguments, tmp_path / "log", {"SAYS": "there"})
    assert forks.reap(pid) == 3
    assert written.read_text() == "hello there True"
    assert written.with_suffix(".end").exists(), "it ended in no ordinary way"


def test_what_a_child_raises_is_in_its_log(forks: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = forks.fork("chaos.forkserver:no_such_function", [], log)
    assert forks.reap(pid) == 1
    assert "no_such_function" in log.read_text()


def test_a_kill_takes_the_whole_group(forks: ForkServer, tmp_path: Path) -> None:
    pid, grandchild = started(forks, tmp_path)
    assert forks.exit_code(pid) is None
    assert forks.kill(pid) == -signal.SIGKILL
    assert wait_until(lambda: gone(grandchild), SOON_S)


def test_when_whoever_asked_is_gone_all_are_ended(tmp_path: Path) -> None:
    guarded = subprocess.Popen(["sleep", "600"])
    env = {"CHAOS_BROKER": "redis://127.0.0.1:1/0"}
    forks = ForkServer("chaos.tasks", env, tmp_path / "forkserver.log")
    try:
        pid, grandchild = started(forks, tmp_path)
        forks.guard(guarded.pid)
        assert forks._popen.stdin is not None
        forks._popen.stdin.close()  # as if this process had been killed
        assert wait_until(lambda: gone(pid) and gone(grandchild), SOON_S)
        assert guarded.wait(SOON_S) == -signal.SIGKILL
    finally:
        guarded.kill()
        forks.close()


# --- what is left in the broker ----------------------------------------------------------------


def test_every_message_is_found_whoever_keeps_it(url: str) -> None:
    app = Celery("shop", broker=url, backend=url, set_as_current=False)
    keys = Keys("default")
    try:
        app.send_task("shop.pay", task_id="waits")
        app.send_task("shop.pay", task_id="urgent", priority=9)
        app.send_task("shop.pay", task_id="elsewhere", queue="video")
        app.send_task("nxs.control.lifecycle", task_id="control", queue="nxs.control")
    finally:
        app.close()
    with connect(url) as client:
        message = str(client.lindex("video", 0)).replace("elsewhere", "other")
        client.hset("unacked", "tag", json.dumps([json.loads(message), "", "celery"]))
        client.hset(keys.inflight("w1@t", 1), "tag", f'[{message}, "", "celery"]')
        client.hset(keys.shelf("quarantine"), "entry", "{}\n" + message)
        client.hset(keys.shelf("parked"), "entry", "{}\nno message at all")
        client.hset(keys.instance("w1@t"), "state", "ACTIVE")
        for producer in ("0c5b2a8d1f3e4c6b", "7e9d0f1a2b3c4d5e"):
            client.set(keys.producer(producer), 1)
        found = {place: tuple(sorted(ids)) for place, ids in remains(client).items()}
        families = key_families(client)
    assert found == {
        "in flight": ("other", "other"),
        "queue celery": ("urgent", "waits"),
        "queue video": ("elsewhere",),
        "shelf parked": ("unreadable: '{}\\nno message at all'",),
        "shelf quarantine": ("other",),
    }
    assert total(found) == 7
    assert families["nxs:{default}:instance:…"] == 1
    assert families["nxs:{default}:producer:…"] == 2


def test_what_a_spool_has_kept_is_found(tmp_path: Path) -> None:
    message = json.dumps({"body": "", "headers": {"task": "shop.pay", "id": "kept"}})
    with closing(sqlite3.connect(tmp_path / "spool-default.db")) as spool, spool:
        spool.execute("CREATE TABLE kept (message BLOB)")
        spool.execute("INSERT INTO kept VALUES (?)", (message.encode(),))
    assert spooled(tmp_path) == {"spool": ("kept",)}
    assert spooled(tmp_path / "none") == {}


def test_an_empty_broker_has_no_remains(url: str) -> None:
    with connect(url) as client:
        client.set("celery-task-meta-some", '{"headers": {"id": "some"}}')
        client.lpush("_kombu.binding.reply", '{"headers": {"id": "some"}}')
        assert remains(client) == {}
