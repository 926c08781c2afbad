"""`nxs unique`: keys of which there is one task at a time."""

from __future__ import annotations

from typing import Annotated

import typer

from nxs_tasks.cli.output import AsJson, console, listing, print_json
from nxs_tasks.errors import NxsError
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.unique import UniqueKeys

unique = typer.Typer(help="Keys of which there is one task at a time.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(metavar="KEY", help="The unique_key of a task.")]


class TaskLives(NxsError):
    """The task that has a key will end by itself."""


class KeyIsFree(NxsError):
    """No task has this unique key."""


@unique.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys that are taken, and by which task. A key is free when its task has ended."""
    runtime: Runtime = context.obj.runtime()
    taken = dict(UniqueKeys(runtime.store()).taken())
    if as_json:
        print_json([{"unique_key": key, "task_id": owner} for key, owner in taken.items()])
        return
    if not taken:
        console().print("no unique key is taken")
        return
    table = listing("UNIQUE KEY", "TASK")
    for key, owner in taken.items():
        table.add_row(key, owner)
    console().print(table)


@unique.command()
def release(
    context: typer.Context,
    key: Key,
    force: Annotated[
        bool, typer.Option("--force", help="Also if its task is held: a second may run beside it.")
    ] = False,
) -> None:
    """Free a key whose task will never end, because its message is gone (a purged queue)."""
    runtime: Runtime = context.obj.runtime()
    keys = UniqueKeys(runtime.store())
    owner = keys.owner(key)
    held = []
    if owner and not force:
        held = [h for h in Queues(runtime.store()).all_held() if h.envelope.task_id == owner]
    if held:
        raise TaskLives(
            f"task {owner} is held by {held[0].instance}, and its key {key!r} is free when it has "
            "ended: --force frees it now, and a second one may run beside it"
        )
    if not owner or not keys.release(key, owner):
        raise KeyIsFree(
            f"no task has the unique key {key!r}; `nxs unique list` shows what is taken"
        )
    console().print(f"{key!r} is free; task {owner} had it", markup=False)
