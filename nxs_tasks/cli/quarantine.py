"""`nxs quarantine`: messages that a person should look at before anything runs them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nxs_tasks.cli.output import UNKNOWN, AsJson, age, console, listing, print_json
from nxs_tasks.clock import iso
from nxs_tasks.errors import NxsError
from nxs_tasks.model.shelf import Shelved
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.message import moment
from nxs_tasks.store.quarantine import Quarantine, envelope_of

quarantine = typer.Typer(
    help="Messages that nothing runs until a person has looked at them.", no_args_is_help=True
)
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="Task ids, or ids of entries.")
]
All = Annotated[bool, typer.Option("--all", help="All that are in quarantine.")]


class NotInQuarantine(NxsError):
    """Nothing of that id is in quarantine."""


@quarantine.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List what is in quarantine, and why. A task comes here if it has lost its holder too often
    (setting lost_holders), and a message if it is broken.
    """
    runtime: Runtime = context.obj.runtime()
    entries = list(Quarantine(runtime.store()).entries())
    if as_json:
        print_json([_told(e) for e in entries])
        return
    if not entries:
        console().print("nothing is in quarantine")
        return
    table = listing("ID", "TASK", "SINCE", "LOST", "WHY")
    now = runtime.store().now()
    for e in entries:
        told = _told(e)
        lost = str(len(told["lost"]))
        table.add_row(e.task_id or e.id, e.task or UNKNOWN, age(now - e.at), lost, e.reason)
    console().print(table)


@quarantine.command()
def show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="A task id, or the id of an entry.")],
    message: Annotated[
        bool,
        typer.Option("--message", help="Print the message as it is: arguments may be secret."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one task in quarantine with its history."""
    entries = _found(_quarantine(context), [id_])
    if as_json:
        print_json([{**_told(e), **({"message": e.message} if message else {})} for e in entries])
        return
    for e in entries:
        for line in _lines(e):
            console().print(line, markup=False, soft_wrap=True)
        if message:
            # Bytes that are no text were kept as they are, and are shown escaped.
            shown = e.message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            console().print(shown, markup=False, soft_wrap=True)


@quarantine.command()
def release(context: typer.Context, ids: Ids = None, all_: All = False) -> None:
    """Give tasks another try: back to the front of their queues, with a loss count of 0."""
    place = _quarantine(context)
    count = place.release(_chosen(place, ids, all_))
    console().print(f"{count} released")


@quarantine.command()
def drop(context: typer.Context, ids: Ids = None, all_: All = False) -> None:
    """Remove tasks for good."""
    place = _quarantine(context)
    count = place.drop(_chosen(place, ids, all_))
    console().print(f"{count} dropped")


def _quarantine(context: typer.Context) -> Quarantine:
    runtime: Runtime = context.obj.runtime()
    return Quarantine(runtime.store())


def _chosen(place: Quarantine, ids: list[str] | None, all_: bool) -> list[Shelved]:
    if bool(ids) == all_:
        raise typer.BadParameter("give ids, or --all")
    return list(place.entries()) if all_ else _found(place, ids or [])


def _found(place: Quarantine, ids: list[str]) -> list[Shelved]:
    found = []
    for id_ in ids:
        entries = place.find(id_)
        if not entries:
            raise NotInQuarantine(
                f"{id_} is not in quarantine; `nxs quarantine list` shows what is"
            )
        found += entries
    return found


def _told(entry: Shelved) -> dict[str, Any]:
    envelope = envelope_of(entry)
    return {
        "entry": entry.id,
        "task_id": entry.task_id,
        "task": entry.task,
        "since": entry.at,
        "reason": entry.reason,
        "goes_back_to": entry.list,
        "lost": [dict(loss) for loss in envelope.lost] if envelope else [],
        "size": len(entry.message),
    }


def _lines(entry: Shelved) -> list[str]:
    told = _told(entry)
    lines = [
        f"{entry.task_id or entry.id} ({entry.task or 'name unknown'})",
        f"  in quarantine since {iso(entry.at)}: {entry.reason}",
        f"  {told['size']} characters, would go back to {entry.list!r}",
    ]
    for loss in told["lost"]:
        lines.append(
            f"  {moment(loss.get('at'))} {loss.get('instance')} (epoch {loss.get('epoch')}) "
            "died while it held it"
        )
    return lines
