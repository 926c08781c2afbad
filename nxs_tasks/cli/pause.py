"""`nxs pause` and `nxs resume`: queues and tasks that wait, until somebody says otherwise."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nxs_tasks.cli.output import AsJson, age, console, print_json
from nxs_tasks.control.pausing import pause as do_pause
from nxs_tasks.control.pausing import resume as do_resume
from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.intent import Kind, Pause
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.intents import Intents

Queues = Annotated[
    list[str] | None, typer.Option("--queue", metavar="NAME", help="A queue. Repeatable.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="NAME", help="The name of a task. Repeatable."),
]


def pause(
    context: typer.Context,
    queue: Queues = None,
    task: Tasks = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks.")] = "",
    as_json: AsJson = False,
) -> None:
    """Have a queue or a task wait; without either, show what is paused.

    It holds for every worker, whenever it starts, until `nxs resume`. What runs goes on. Pausing
    the shared queue also pauses what was placed on instances.
    """
    runtime: Runtime = context.obj.runtime()
    wanted = _wanted(queue, task)
    lines = []
    for kind, name in wanted:
        done = do_pause(runtime, kind, name, reason)
        lines.append(f"{kind} {name} is paused" + ("" if done.new else " (it was before)"))
        lines += [f"! {done.hint}"] if done.hint else []
    _show(runtime, lines or _list(runtime), as_json)


def resume(
    context: typer.Context, queue: Queues = None, task: Tasks = None, as_json: AsJson = False
) -> None:
    """End a pause. Tasks that were put aside go back to the front of their queues, in order."""
    runtime: Runtime = context.obj.runtime()
    wanted = _wanted(queue, task)
    if not wanted:
        raise IntentRefused("say what to resume: --queue NAME or --task NAME")
    lines, found = [], False
    for kind, name in wanted:
        done = do_resume(runtime, kind, name)
        found = found or done.was_paused
        if not done.was_paused:
            lines.append(f"{kind} {name} was not paused (`nxs pause` shows what is)")
        if done.was_paused or done.back:
            back = f", {done.back} task(s) wait in their queues again" if done.back else ""
            lines.append(f"{kind} {name} is resumed{back}")
    _show(runtime, lines, as_json)
    if not found:
        raise typer.Exit(1)


def _wanted(queues: list[str] | None, tasks: list[str] | None) -> list[tuple[Kind, str]]:
    return [*(("queue", q) for q in queues or ()), *(("task", t) for t in tasks or ())]


def _list(runtime: Runtime) -> list[str]:
    store = runtime.store()
    now = store.now()
    return [pause_line(p, now) for p in Intents(store).pauses()] or ["nothing is paused"]


def pause_line(paused: Pause, now: float) -> str:
    """One pause as a person reads it; `now` is the server's time, s."""
    since = "" if paused.since is None else f" since {age(now - paused.since)}"
    by = f" by {paused.by}" if paused.by else ""
    reason = f": {paused.reason}" if paused.reason else ""
    return f"{paused.kind} {paused.name} is paused{since}{by}{reason}"


def _show(runtime: Runtime, lines: list[str], as_json: bool) -> None:
    if as_json:
        pauses = Intents(runtime.store()).pauses()
        print_json({"pauses": [asdict(p) for p in pauses], "said": lines})
        return
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)
