"""`nxs migrate`: a running task goes on with another instance, from its last checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nxs_tasks.cli.output import AsJson, console, print_json
from nxs_tasks.control.moving import migrate as do_migrate
from nxs_tasks.control.moving import stay
from nxs_tasks.runtime import Runtime


def migrate(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="ID", help="Id of a task that runs.")],
    to: Annotated[
        str, typer.Option("--to", metavar="NODE", help="Instance that it goes to; else any other.")
    ] = "",
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Take it back, if the task has not stopped yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have a running task stop at its next checkpoint and go on with another instance.

    Only for a task that declares it (`checkpoint=True`) and saves its state. It keeps its id.
    """
    runtime: Runtime = context.obj.runtime()
    if cancel and to:
        raise typer.BadParameter("--cancel goes without --to")
    if cancel:
        was_asked = stay(runtime, task)
        told = "stays where it is" if was_asked else "was not asked to move, or has moved already"
        _print({"task_id": task, "was_asked": was_asked}, f"{task} {told}", as_json)
        if not was_asked:
            raise typer.Exit(1)
        return
    done = do_migrate(runtime, task, to)
    line = (
        f"{done.task}[{done.task_id}] stops at its next checkpoint on {done.holder} and goes on "
        f"with {done.to or 'another instance'}" + ("" if done.new else " (it was asked before)")
    )
    _print(asdict(done), line, as_json)


def _print(data: object, line: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        console().print(line, markup=False, soft_wrap=True)
