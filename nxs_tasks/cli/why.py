"""`nxs why`: why a task does not run, on each instance, and when it may start."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from nxs_tasks.cli.output import AsJson, console, listing, print_json
from nxs_tasks.clock import iso
from nxs_tasks.control.whereabouts import why as look
from nxs_tasks.model.why import Start, Why, span
from nxs_tasks.runtime import Runtime


def why(
    context: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A task id.")],
    as_json: AsJson = False,
) -> None:
    """Say why a task does not run: in one sentence, for each instance, and when it may start.

    If it does not wait, say what is with it. Exit code 1 if nothing is known of it.
    """
    runtime: Runtime = context.obj.runtime()
    told = look(runtime, task_id)
    if as_json:
        print_json(_as_dict(told))
    else:
        _print(told)
    if not told.known:
        raise typer.Exit(1)


def _as_dict(told: Why) -> dict[str, Any]:
    where = told.where
    return {
        "task_id": where.task_id,
        "task": where.task or None,
        "known": told.known,
        "waits": told.waits,
        "why": told.sentence,
        "place": where.place,
        "queue": where.queue or None,
        "priority": where.priority if where.place == "queue" else None,
        "ahead": where.ahead if where.place == "queue" else None,
        "at": where.at,
        "holder": where.holder or None,
        "result_state": where.result or None,
        "instances": {one.instance: one.reason for one in told.instances},
        "start": asdict(told.start) if told.start else None,
    }


def _print(told: Why) -> None:
    where = told.where
    for line in (f"task {where.task_id} ({where.task or 'name unknown'})", f"  {told.sentence}"):
        console().print(line, markup=False, soft_wrap=True)
    if not told.waits:
        return
    if where.place == "queue":
        line = f"  in {where.queue}, priority {where.priority}, {where.ahead} ahead of it"
        console().print(line, markup=False, soft_wrap=True)
    elif where.place == "delayed" and where.at is not None:
        console().print(f"  due {iso(where.at)}", markup=False, soft_wrap=True)
    if told.start is not None:
        console().print(f"  expected start: {_when(told.start)}", markup=False, soft_wrap=True)
    if not told.instances:
        console().print("  there is no instance", markup=False)
        return
    table = listing("INSTANCE", "WHY NOT THERE")
    for one in told.instances:
        table.add_row(Text(one.instance), Text(one.reason))
    console().print(table)


def _when(start: Start) -> str:
    earliest, about, latest = start.earliest_s, start.about_s, start.latest_s
    if about is not None and earliest is not None and latest is not None:
        return f"in about {span(about)} ({span(earliest)} to {span(latest)}): {start.why}"
    if earliest is not None:
        return f"in {span(earliest)} at the earliest, else unknown: {start.why}"
    return f"unknown: {start.why}"
