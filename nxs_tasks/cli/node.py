"""`nxs node`: what one machine of a real fleet runs, supervised.

A task worker, a control worker and a beat candidate. What dies is started again, with growing
delays; SIGTERM or Ctrl-C ends all gracefully.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from nxs_tasks.cli.interrupts import end_on_signals
from nxs_tasks.cli.output import console
from nxs_tasks.cli.processes import (
    Spec,
    Supervisor,
    beat_spec,
    control_spec,
    keep_running,
    worker_specs,
)
from nxs_tasks.cli.target import Target, state_dir
from nxs_tasks.worker.step import is_patient, patiently

#: A task may take hours, and nobody but its user knows.
ANY_TIME_S = 30 * 24 * 3600.0


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
    grace: Annotated[
        float, typer.Option(help="Seconds that running tasks may take at the end; 0 = any time.")
    ] = 0.0,
) -> None:
    """Run this machine's part of the fleet: task worker, control worker, beat candidate.

    Any number of machines may do so; of the beats one leads. All of them log to where this
    command does.
    """
    target: Target = context.obj
    runtime = target.runtime()
    # As the workers themselves do: a machine may start before its broker.
    patiently(runtime.store().check_server, is_patient(target.app().conf))
    state_dir(runtime.settings)
    if control:
        runtime.history()
    host = socket.gethostname()
    instance = name if "@" in name else f"{name}@{host}"
    specs = worker_specs(target.name, [(instance, slots)], grace or ANY_TIME_S, ("-P", pool))
    if control:
        specs += [
            control_spec(target.name, host, runtime.keys.control_queue()),
            beat_spec(target.name),
        ]
    supervise(specs)


def supervise(specs: list[Spec]) -> None:
    """Run the children until SIGTERM or Ctrl-C; a second one ends them at once."""
    out = console()
    end_on_signals()
    with Supervisor(None, os.environ) as supervisor:
        supervisor.start(*specs)
        for child in supervisor.children:
            out.print(f"{child.spec.name}: pid {child.pid}", soft_wrap=True)
        try:
            keep_running(supervisor, out)
        except KeyboardInterrupt:
            out.print("stopping: running tasks may finish, a second Ctrl-C ends them at once")
