"""`nxs node`: what one machine of a real fleet runs, supervised.

A task worker, a control worker and a beat candidate. What dies is started again, with growing
delays; SIGTERM or Ctrl-C ends all gracefully.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from nxs_tasks.cli.output import console
from nxs_tasks.cli.processes import (
    Spec,
    Supervisor,
    beat_spec,
    control_spec,
    interrupt_on_sigterm,
    worker_specs,
)
from nxs_tasks.cli.target import Target
from nxs_tasks.clock import wait_until
from nxs_tasks.runtime import Runtime


def node(
    context: typer.Context,
    slots: Annotated[
        int, typer.Option(min=1, help="Tasks at a time. Default: number of cores.")
    ] = os.cpu_count() or 1,
    name: Annotated[str, typer.Option(help="Node name of the task worker, NAME or NAME@HOST.")] = (
        "celery"
    ),
    pool: Annotated[str, typer.Option(help="Pool of the task worker, as for celery.")] = "prefork",
    control: Annotated[
        bool, typer.Option(help="Run a control worker and a beat candidate beside it.")
    ] = True,
) -> None:
    """Run this machine's part of the fleet: task worker, control worker, beat candidate.

    Any number of machines may do so; of the beats one leads. Logs are in the state directory.
    """
    target: Target = context.obj
    runtime = target.runtime()
    runtime.store().check_server()
    if control:
        runtime.history()
    host = socket.gethostname()
    instance = name if "@" in name else f"{name}@{host}"
    specs = worker_specs(target.name, [(instance, slots)], ("-P", pool))
    if control:
        specs += [
            control_spec(target.name, host, runtime.keys.control_queue()),
            beat_spec(target.name),
        ]
    supervise(runtime, specs)


def supervise(runtime: Runtime, specs: list[Spec]) -> None:
    """Run the children until SIGTERM or Ctrl-C."""
    out = console()
    interrupt_on_sigterm()
    log_dir = runtime.settings.state_path / "logs"
    log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Supervisor(log_dir, os.environ) as supervisor:
        supervisor.start(*specs)
        for child in supervisor.children:
            out.print(f"{child.spec.name}: pid {child.pid}, log {child.log_path}", soft_wrap=True)

        def tick() -> bool:
            for told in supervisor.restart_dead():
                out.print(told, soft_wrap=True)
            return False

        try:
            while True:
                wait_until(tick, deadline_s=3600.0, poll_s=0.5)
        except KeyboardInterrupt:
            out.print("stopping: running tasks may finish")
