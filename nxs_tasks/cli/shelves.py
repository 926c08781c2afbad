"""`nxs shelves`: messages that wait out of every queue, and how to give them all back."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from nxs_tasks.cli.output import UNKNOWN, AsJson, console, listing, print_json
from nxs_tasks.errors import NxsError
from nxs_tasks.model.shelf import DELAYED, PARKED, PAUSED, SHELVES
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.message import moment
from nxs_tasks.store.shelves import Shelves

#: Celery itself can deal with these; what is in quarantine is given back one by one.
RETURNABLE = (DELAYED, PARKED, PAUSED)
MEANING = {
    DELAYED: "until its time (ETA, countdown, retry)",
    PARKED: "until an instance knows its task",
    PAUSED: "until its task is resumed",
}


class NoSuchShelf(NxsError):
    """There is no shelf of that name."""


def shelves(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[SHELF]", help="List what lies there, earliest first.")
    ] = "",
    most: Annotated[int, typer.Option("--most", help="Entries to list.")] = 50,
    give_back: Annotated[
        bool,
        typer.Option(
            "--return",
            help="Put what is delayed, parked or paused back into its queues: the last step "
            "before an app goes on without NXS. Stop the workers first.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count or list the messages that wait out of every queue, or put them back."""
    runtime: Runtime = context.obj.runtime()
    found = Shelves(runtime.store())
    if name:
        _list(found, name, most, as_json)
        return
    if give_back:
        moved = {s: found.take(s, list(found.entries(s)), "back") for s in RETURNABLE}
        if as_json:
            print_json(moved)
        else:
            console().print(f"{sum(moved.values())} message(s) put back into their queues")
        return
    rows = {s: {"count": found.count(s), "first": found.first_at(s)} for s in SHELVES}
    if as_json:
        print_json(rows)
        return
    table = listing("SHELF", "MESSAGES", "FIRST", "WAIT")
    for name, row in rows.items():
        first = UNKNOWN if row["first"] is None else moment(row["first"])
        table.add_row(name, str(row["count"]), first, MEANING.get(name, "until somebody looks"))
    console().print(table)


def _list(shelves: Shelves, name: str, most: int, as_json: bool) -> None:
    if name not in SHELVES:
        raise NoSuchShelf(f"there is no shelf {name!r}: choose from {', '.join(SHELVES)}")
    entries = list(islice(shelves.entries(name), most))
    if as_json:
        print_json(
            [{"task_id": e.task_id, "task": e.task, "at": e.at, "why": e.reason} for e in entries]
        )
        return
    table = listing("ID", "TASK", "AT", "WHY")
    for e in entries:
        table.add_row(e.task_id or e.id, e.task or UNKNOWN, moment(e.at), e.reason)
    console().print(table)
    left = shelves.count(name) - len(entries)
    if left > 0:
        console().print(f"and {left} more (--most)")
