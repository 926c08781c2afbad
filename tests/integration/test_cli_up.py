"""`nxs up` and `nxs node` as a person runs them, and what they say when they cannot."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from nxs_tasks.model.state import State
from tests.integration.live import APP, Live

pytest_plugins = ["tests.integration.live_fixtures"]

UP = ("nxs_tasks.cli", "-A", "nxs_tasks.app", "up")


def work_well(app: Any, console: Console, out: Path) -> int:
    """A `--work` for these tests: every instance is ACTIVE when it is called."""
    snapshot = app.nxs_runtime.store().snapshot()
    console.print(
        "working on", *(f"{i.id.partition('@')[0]}={i.state}" for i in snapshot.instances)
    )
    out.mkdir(parents=True)
    return 0


def work_badly(app: Any, console: Console, out: Path) -> int:
    return 7


def children_of_up(live: Live) -> list[psutil.Process]:
    """What `nxs up` has started in the state directory of a test."""
    return children_of(live.env["NXS_STATE_DIR"]) + children_of(live.env["NXS_STATE_DIR"] + "/up")


def children_of(state_dir: str) -> list[psutil.Process]:
    """Every process on this machine that was started for a state directory."""
    found = []
    for process in psutil.process_iter():
        try:
            # The server writes its title over its environment, but it works in its folder.
            known = process.environ().get("NXS_STATE_DIR") == state_dir
            if known or process.cwd() == f"{state_dir}/server":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_up_once_runs_a_fleet_and_its_work_and_leaves_nothing_running(live: Live) -> None:
    out = live.directory / "out"
    work = ("--work", f"{__name__}:work_well", "--out", str(out))
    told = live.command(*UP, "--slots", "1,2", *work, "--once")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "working on w1=ACTIVE w2=ACTIVE" in told.stdout
    assert out.is_dir()
    assert children_of_up(live) == []
    assert not (live.directory / "state" / "up" / "up.json").exists()


def test_up_stays_until_it_is_told_to_end(live: Live) -> None:
    up = live.start("up", *UP, "--slots", "1")
    live.until(lambda: "stays up until Ctrl-C" in up.log, "the fleet to stay up")
    flower = re.findall(r"Flower: (http://\S+)", up.log)[0]
    with urllib.request.urlopen(f"{flower}/api/workers", timeout=10) as answer:
        assert {name.partition("@")[0] for name in json.load(answer)} >= {"w1", "control"}
    seen = live.command("nxs_tasks.cli", "status")
    assert "ACTIVE" in seen.stdout, "another command finds it without being told where it is"
    second = live.command(*UP, "--no-flower")
    assert second.returncode == 2
    assert "another `nxs up`, or a server that one left behind" in second.stderr
    up.signal(signal.SIGINT)
    assert up.wait() == 0
    assert "ended every process" in up.log
    assert "Traceback" not in up.log
    assert children_of_up(live) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_up_ends_all_whatever_ends_it(live: Live, number: signal.Signals) -> None:
    up = live.start("up", *UP, "--slots", "1", "--no-flower")
    live.until(lambda: (live.directory / "state/up/up.json").exists(), "the server to run")
    up.signal(number)
    assert up.wait() == 130, "it had not come up yet"
    assert children_of_up(live) == []


def test_a_server_that_was_left_behind_is_not_joined_by_a_second(live: Live) -> None:
    """Two servers on one append-only file destroy it."""
    up = live.start("up", *UP, "--slots", "1", "--no-flower")
    live.until(lambda: "stays up until Ctrl-C" in up.log, "the fleet to stay up")
    up.signal(signal.SIGKILL)
    up.wait()
    left = children_of_up(live)
    second = live.command(*UP, "--no-flower", "--once")
    assert second.returncode == 2
    assert "a server that one left behind" in second.stderr
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    assert live.command(*UP, "--slots", "1", "--no-flower", "--once").returncode == 0


def test_up_passes_the_code_of_its_work_on(live: Live) -> None:
    work = ("--work", f"{__name__}:work_badly")
    told = live.command(*UP, "--slots", "1", "--no-flower", *work, "--once")
    assert told.returncode == 7, told.stdout + told.stderr
    assert children_of_up(live) == []


def test_node_runs_worker_control_worker_and_beat_and_restarts_what_dies(live: Live) -> None:
    live.env["NXS_BROKER_URL"] = live.server.url
    live.server.kill()
    node = live.start("node", "nxs_tasks.cli", "-A", APP, "node", "--slots", "2", "--name", "n1@t")
    live.until(lambda: "Trying again" in node.log, "it to wait for the server")
    live.server.start()
    live.until_state(State.ACTIVE, "n1@t")
    worker = next(
        p
        for p in children_of(live.env["NXS_STATE_DIR"])
        if "n1@t" in p.cmdline() and p.ppid() == node.pid
    )
    worker.kill()
    live.until(lambda: "n1 ended with -9, starting it again" in node.log, "it to be noticed")
    live.until(lambda: live.instance("n1@t").epoch == 2, "the worker to be started again")
    live.until_state(State.ACTIVE, "n1@t")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert children_of(live.env["NXS_STATE_DIR"]) == []


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        pytest.param(
            ("status",),
            {"SHOP_BROKER": "redis://:hush-hush@127.0.0.1:1/0"},
            "no Redis or Valkey server answers at redis://:***@127.0.0.1:1/0",
            id="no server at the URL",
        ),
        pytest.param(
            ("status",),
            {"NXS_TRESHOLD": "0.4"},
            "unknown setting 'NXS_TRESHOLD', did you mean 'NXS_THRESHOLD'?",
            id="an unknown setting",
        ),
        pytest.param(
            ("up",),
            {"NXS_STATE_DIR": "/proc/nxs"},
            "the state directory /proc/nxs cannot be written",
            id="a state directory that cannot be written, for up",
        ),
        pytest.param(
            ("node",),
            {"NXS_STATE_DIR": "/proc/nxs"},
            "state directory",
            id="a state directory that cannot be written, for node",
        ),
        pytest.param(("up", "--slots", "1,x"), {}, "--slots '1,x'", id="slots that are none"),
        pytest.param(("up", "--work", "nowhere:f"), {}, "--work nowhere:f", id="work that is none"),
    ],
)
def test_a_command_that_cannot_says_why(
    live: Live, arguments: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    live.env.update(env)
    told = live.nxs(*arguments)
    assert told.returncode == 2, told.stdout + told.stderr
    assert says in told.stderr
    assert "hush-hush" not in told.stdout + told.stderr
    assert "Traceback" not in told.stderr


def test_without_an_app_and_without_a_running_fleet_it_says_so(live: Live) -> None:
    told = live.command("nxs_tasks.cli", "status")
    assert told.returncode == 2
    assert "no `nxs up` runs here: name your app" in told.stderr


def test_an_app_that_is_not_there_is_named(live: Live) -> None:
    told = live.command("nxs_tasks.cli", "-A", "no.such.module", "status")
    assert told.returncode == 2
    assert "-A no.such.module: no Celery app there" in told.stderr


def test_doctor_tells_what_is_there_and_what_is_not(live: Live) -> None:
    told = live.command("nxs_tasks.cli.doctor", "check", "-A", APP)
    assert told.returncode == 1
    assert "ok      broker" in told.stdout
    assert "ok      persistence" in told.stdout
    assert "WRONG   control plane: has never ticked" in told.stdout
    assert "WRONG   work: no instance takes work" in told.stdout
    assert "ok      writes" in told.stdout


def test_doctor_tells_what_nobody_takes(live: Live, shop: Any) -> None:
    shop.add.delay(1, 1)
    shop.fleet.submit(shop.add, (1, 1), queue="video")
    told = live.command("nxs_tasks.cli.doctor", "check", "-A", APP)
    assert "no instance takes what waits: 1 in video, 1 in celery;" in told.stdout
    live.store.client.config_set("maxmemory", "1")
    told = live.command("nxs_tasks.cli.doctor", "check", "-A", APP)
    assert "WRONG   writes: the server" in told.stdout


def test_doctor_asks_a_broker_that_is_away_once(live: Live) -> None:
    live.server.kill()
    told = live.command("nxs_tasks.cli.doctor", "check", "-A", APP)
    assert told.stdout.count("no Redis or Valkey server answers") == 1
    assert "unknown work: not looked at" in told.stdout
    assert "ok      spool" in told.stdout
