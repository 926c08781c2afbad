"""`nxs up`: a whole fleet on this machine in one command.

An embedded server, instances with different numbers of slots, a control worker, a beat, Flower;
then real work, if there is some; until Ctrl-C, which ends every process, or at once with `--once`.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nxs_tasks.cli.interrupts import end_on_signals, interrupted, take
from nxs_tasks.cli.output import console
from nxs_tasks.cli.processes import (
    WATCH_S,
    Spec,
    Supervisor,
    beat_spec,
    celery,
    control_spec,
    keep_running,
    restart_and_tell,
    worker_specs,
)
from nxs_tasks.cli.server import free_port, server_spec
from nxs_tasks.cli.status import collect, render
from nxs_tasks.cli.target import RUNNING_FILE, Running, Target, state_dir, up_home
from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerError, NxsError, SettingError
from nxs_tasks.model.state import State
from nxs_tasks.runtime import Runtime
from nxs_tasks.settings import load
from nxs_tasks.store import FleetStore, Keys, Wire, connect
from nxs_tasks.store.server import persistence

SERVER_UP_S = 15.0
FLEET_UP_S = 90.0
FLOWER_UP_S = 30.0

#: Running tasks may take so long at the end.
GRACE_S = 30.0
#: Ctrl-C before the work was done, as a shell has it.
EXIT_INTERRUPTED = 130

#: What `--work` names: gets the app, the console and the folder for reports; returns an exit code.
Work = Callable[[Any, Console, Path], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `nxs up` was asked for."""

    slots: tuple[int, ...]
    port: int
    flower_port: int | None
    work: Work | None
    out: Path
    once: bool


def up(
    context: typer.Context,
    slots: Annotated[
        str, typer.Option(help="Slots of each instance, comma-separated: one instance for each.")
    ] = "1,2,3",
    port: Annotated[int, typer.Option(help="Port of the embedded server; 0 = a free one.")] = 0,
    flower: Annotated[bool, typer.Option(help="Run Flower.")] = True,
    flower_port: Annotated[int, typer.Option(help="Port of Flower; 0 = a free one.")] = 0,
    work: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="Call this when the fleet is up.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder for the reports of the work.")] = Path("report"),
    once: Annotated[
        bool, typer.Option("--once", help="End after the work, with its code.")
    ] = False,
) -> None:
    """Run a whole fleet on this machine: server, instances, control plane, Flower, work."""
    target: Target = context.obj
    plan = Plan(
        slots=_parse_slots(slots),
        port=port or free_port(),
        flower_port=(flower_port or free_port()) if flower else None,
        work=_find_work(work),
        out=out,
        once=once,
    )
    end_on_signals()
    home = up_home(state_dir(load().settings))
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_one(home) as lock:
        raise typer.Exit(_run(target, plan, home, lock, console()))


def _run(target: Target, plan: Plan, home: Path, lock: int, out: Console) -> int:
    target.use_fleet(f"redis://127.0.0.1:{plan.port}/0", home)
    os.environ.setdefault("FLOWER_UNAUTHENTICATED_API", "true")
    code = EXIT_INTERRUPTED
    try:
        with Supervisor(home / "logs", os.environ) as supervisor:
            fsync = load().settings.server_fsync
            server = server_spec(home / "server", plan.port, lock, fsync)
            code = _bring_up_and_work(target, plan, home, server, supervisor, out)
            if not plan.once:
                out.print("the fleet stays up until Ctrl-C", style="bold")
                keep_running(supervisor, out)
            return code
    except (KeyboardInterrupt, Exception):
        if not interrupted():
            raise
        out.print("\nended every process")
        return code
    finally:
        (home / RUNNING_FILE).unlink(missing_ok=True)


def _bring_up_and_work(
    target: Target, plan: Plan, home: Path, server: Spec, supervisor: Supervisor, out: Console
) -> int:
    url = os.environ["NXS_BROKER_URL"]
    supervisor.start(server)
    _await_server(url, supervisor)
    Running(pid=os.getpid(), app=target.name, broker_url=url).write(home)
    runtime = target.runtime()
    runtime.history()
    left = runtime.store().snapshot().shared_depth
    if left:
        out.print(f"{left} task(s) wait from an earlier run: they are run first")
    host = socket.gethostname()
    names = [(f"w{n}@{host}", slots) for n, slots in enumerate(plan.slots, 1)]
    queue = runtime.keys.control_queue()
    supervisor.start(control_spec(target.name, host, queue), beat_spec(target.name))
    supervisor.start(*worker_specs(target.name, names, GRACE_S))
    with out.status(f"waiting for {len(names)} instances to become ACTIVE"):
        _await_fleet(runtime, {name for name, _ in names}, supervisor)
    if plan.flower_port is not None:
        # Flower asks who is there when it starts: after the instances, it knows them all.
        supervisor.start(_flower_spec(target.name, plan.flower_port))
    out.print(render(collect(runtime)))
    code = _do_work(plan, target, runtime, supervisor, out)
    if plan.flower_port is not None:
        _await_flower(plan.flower_port, {name for name, _ in names}, supervisor)
        if not plan.once:
            out.print(f"Flower: http://127.0.0.1:{plan.flower_port}", soft_wrap=True)
    if not plan.once:
        out.print(f"to submit to it: export CELERY_BROKER_URL={url} CELERY_RESULT_BACKEND={url}")
    out.print(f"logs: {home / 'logs'}", soft_wrap=True)
    return code


def _do_work(
    plan: Plan, target: Target, runtime: Runtime, supervisor: Supervisor, out: Console
) -> int:
    """Do the work, if there is some; what dies meanwhile is started again, and that is said."""
    if plan.work is None:
        return 0
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            restart_and_tell(supervisor, out)

    watcher = threading.Thread(target=watch, name="nxs-watch", daemon=True)
    watcher.start()
    try:
        code = plan.work(target.app(), out, plan.out)
    finally:
        take()
        over.set()
        watcher.join()
        runtime.flush()
    out.print(render(collect(runtime)))
    return code


def _flower_spec(app: str, port: int) -> Spec:
    arguments = ("flower", "--address=127.0.0.1", f"--port={port}")
    return Spec(name="flower", argv=celery(app, *arguments), grace_s=5.0)


def _await_server(url: str, supervisor: Supervisor) -> None:
    store = FleetStore(connect(url), Keys("up"), Wire(), "", url)

    def serves() -> bool:
        supervisor.require_alive()
        try:
            return persistence(store) is True
        except BrokerError:
            return False

    if not wait_until(serves, SERVER_UP_S):
        raise NxsError(f"the embedded server did not answer within {SERVER_UP_S:.0f} s")


def _await_fleet(runtime: Runtime, names: set[str], supervisor: Supervisor) -> None:
    def active() -> bool:
        supervisor.require_alive()
        found = {i.id for i in runtime.store().snapshot().instances if i.state is State.ACTIVE}
        return names <= found

    if not wait_until(active, FLEET_UP_S, poll_s=0.2):
        table = [f"{i.id} is {i.state}: {i.verdict}" for i in runtime.store().snapshot().instances]
        raise NxsError(
            f"not all instances became ACTIVE within {FLEET_UP_S:.0f} s:\n" + "\n".join(table)
        )


def _await_flower(port: int, names: set[str], supervisor: Supervisor) -> None:
    def knows_all() -> bool:
        supervisor.require_alive()
        try:
            url = f"http://127.0.0.1:{port}/api/workers?refresh=1"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return names <= set(json.load(answer))
        except urllib.error.HTTPError:
            return True  # it answers, and asks who we are: the user has set a login
        except (OSError, ValueError):
            return False

    if not wait_until(knows_all, FLOWER_UP_S):
        raise NxsError(f"Flower on port {port} did not list the fleet in {FLOWER_UP_S:.0f} s")


@contextmanager
def _only_one(home: Path) -> Iterator[int]:
    """Lock the folder; yields the locked descriptor. Two servers must not share their files."""
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingError(
                f"another `nxs up`, or a server that one left behind, runs in {home}: "
                "end it, or set NXS_STATE_DIR to another folder"
            ) from None
        yield lock.fileno()


def _parse_slots(text: str) -> tuple[int, ...]:
    try:
        slots = tuple(int(part) for part in text.split(","))
    except ValueError:
        slots = ()
    if not slots or min(slots) < 1:
        raise SettingError(f"--slots {text!r}: expected numbers from 1 up, such as 1,2,3")
    return slots


def _find_work(name: str) -> Work | None:
    if not name:
        return None
    module_name, _, function = name.partition(":")
    try:
        found: Work = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"--work {name}: {error}; expected MODULE:FUNCTION") from None
    return found
