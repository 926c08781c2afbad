"""`nxs cancel`: tasks that shall not run, also while nobody is up, and back again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from nxs_tasks.cli.output import AsJson, console, print_json
from nxs_tasks.control.cancelling import cancel as do_cancel
from nxs_tasks.control.cancelling import undo as do_undo
from nxs_tasks.model.intent import Cancellation, Selection, Undone
from nxs_tasks.model.shelf import QUARANTINE
from nxs_tasks.runtime import Runtime

#: Ids of a kind that are printed; JSON has them all.
SHOWN = 10

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Task ids.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", metavar="NAME", help="All tasks of that name that wait now. Repeatable."
    ),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP_ID", help="All tasks of that group. Repeatable."),
]


def cancel(
    context: typer.Context,
    ids: Ids = None,
    task: Tasks = None,
    group: Groups = None,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="End those that run already, too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be cancelled, and change nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take a cancellation back: what waited waits again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have tasks not run: those that wait in Redis now, and each ID wherever it turns up.

    It holds for every worker, whenever it starts. Nothing that is submitted later is touched,
    except by its ID. What waited is kept for `cancel_days`, for `--undo`.
    """
    runtime: Runtime = context.obj.runtime()
    wanted = Selection(ids=_set(ids), tasks=_set(task), groups=_set(group))
    if undo and (terminate or dry_run):
        raise typer.BadParameter("--undo goes with neither --terminate nor --dry-run")
    if undo:
        undone = do_undo(runtime, wanted)
        _print(asdict(undone), _undone_lines(undone), as_json)
        if not (undone.back or undone.unmarked):
            raise typer.Exit(1)
        return
    told = do_cancel(runtime, wanted, terminate=terminate, dry_run=dry_run)
    _print(asdict(told), _lines(told), as_json)
    if not (told.found or told.before or wanted.ids):
        raise typer.Exit(1)


def _set(values: Iterable[str] | None) -> frozenset[str]:
    return frozenset(v for v in values or () if v)


def _print(data: object, lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)


def _lines(told: Cancellation) -> list[str]:
    verb = "would be cancelled" if told.dry_run else "cancelled"
    lines = [f"{told.found} task(s) found" + (f", {verb}:" if told.found else "")]
    taken = "to take out of" if told.dry_run else "taken out of"
    lines += [f"  {count} {taken} {place}" for place, count in sorted(told.withdrawn.items())]
    lines += [
        f"  {count} left in {place}: {_why_left(place)}" for place, count in told.left.items()
    ]
    lines += _running_lines(told)
    if told.missed:
        lines.append(
            f"  {len(told.missed)} taken by a worker at the same moment, may have run: "
            + _some(told.missed)
        )
    lines += [
        f"not found: {id_}" + (f" (its result says {state})" if state else "") + _future(told)
        for id_, state in told.nowhere.items()
    ]
    if told.before:
        lines.append(f"cancelled before: {_some(told.before)}")
    if told.untold:
        lines.append(f"! {told.untold}: their results say REVOKED when the control worker can")
    return lines


def _why_left(place: str) -> str:
    if place == f"shelf {QUARANTINE}":
        return "will not run if released"
    return "part of a chord, the worker that meets it revokes it, so that the chord learns of it"


def _running_lines(told: Cancellation) -> list[str]:
    if told.terminated:
        ending = "told to end (only a pool of processes can)"
    elif told.dry_run:
        ending = "would go on, unless with --terminate"
    else:
        ending = "goes on, and is not run again if its worker dies (--terminate ends it)"
    return [f"  {r.task} {r.task_id} is held by {r.instance}: {ending}" for r in told.running]


def _future(told: Cancellation) -> str:
    return "" if told.dry_run else ": if it comes, it will not run"


def _undone_lines(undone: Undone) -> list[str]:
    lines = []
    if undone.back:
        lines.append(f"{len(undone.back)} task(s) wait again, at the front: {_some(undone.back)}")
    lines += [
        f"{id_} stays cancelled: its unique_key now belongs to {owner}"
        for id_, owner in undone.refused.items()
    ]
    lines += [
        f"{id_} is not cancelled any more; there was no message to put back"
        for id_ in undone.unmarked
    ]
    lines += [f"{id_} was not cancelled" for id_ in undone.unknown]
    return lines or ["nothing of that was cancelled"]


def _some(ids: tuple[str, ...]) -> str:
    more = len(ids) - SHOWN
    return ", ".join(ids[:SHOWN]) + (f" and {more} more" if more > 0 else "")
