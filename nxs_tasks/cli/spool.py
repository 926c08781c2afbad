"""`nxs spool`: tasks that wait on this machine, because the broker did not take them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nxs_tasks.cli.output import AsJson, age, console, listing, print_json
from nxs_tasks.errors import MessageError, NxsError
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.message import read
from nxs_tasks.submission.batches import counts, drop, readdress, retry, rows
from nxs_tasks.submission.outbox import Outbox, outbox_of
from nxs_tasks.submission.spool import Kept

spool = typer.Typer(
    help="Tasks that wait on this machine, because the broker did not take them.",
    no_args_is_help=True,
)
Ids = Annotated[list[int], typer.Argument(metavar="ID…", help="Numbers of rows, as shown.")]


def count_kept(runtime: Runtime) -> dict[tuple[str, bool], int]:
    """How many messages this machine keeps, by broker and whether it refused them."""
    kept = outbox_of(runtime.app).spool
    return counts(kept) if kept.exists() else {}


def kept_lines(numbers: dict[tuple[str, bool], int]) -> list[str]:
    """The same, as a person reads it."""
    return [
        f"{count} {'refused by' if refused else 'wait for'} {broker}"
        for (broker, refused), count in numbers.items()
    ]


class NotSent(NxsError):
    """The broker does not take what is in the spool."""


@spool.command()
def show(
    context: typer.Context,
    as_json: AsJson = False,
    most: Annotated[int, typer.Option("--most", help="Rows to show.")] = 50,
) -> None:
    """Show what waits, oldest first, for which broker and why."""
    outbox = _outbox(context)
    found = rows(outbox.spool, most) if outbox.spool.exists() else []
    numbers = count_kept(context.obj.runtime())
    if as_json:
        told = [_told(row) for row in found]
        total = [
            {"broker": broker, "refused": refused, "count": count}
            for (broker, refused), count in numbers.items()
        ]
        print_json({"file": str(outbox.spool.path), "counts": total, "rows": told})
        return
    _print_rows(context, found)
    for (broker, _), line in zip(numbers, kept_lines(numbers), strict=True):
        hint = "" if broker == outbox.broker else ": this app has another broker"
        console().print(f"{line}{hint}", markup=False)
    if not numbers:
        console().print(f"nothing is in {outbox.spool.path}", markup=False)


@spool.command()
def drain(
    context: typer.Context,
    refused: Annotated[
        bool, typer.Option("--refused", help="Try again what the broker refused, too.")
    ] = False,
    unsure: Annotated[
        bool,
        typer.Option(
            "--unsure", help="Send what the broker may have already, too: it may run twice."
        ),
    ] = False,
) -> None:
    """Send what waits, now. Workers of the fleet on this machine do so by themselves."""
    outbox = _outbox(context)
    if not outbox.spool.exists():
        console().print("nothing waits")
        return
    if refused:
        retry(outbox.spool, outbox.broker)
    if unsure:
        retry(outbox.spool, outbox.broker, unsure=True)
    done = outbox.drain()
    if done.elsewhere:
        console().print("another process of this machine is sending them")
        return
    other = f", {done.superseded} left out: another has the unique_key" if done.superseded else ""
    console().print(f"{done.sent} sent, {done.refused} refused{other}")
    numbers = count_kept(context.obj.runtime())
    elsewhere = {key: count for key, count in numbers.items() if key[0] != outbox.broker}
    for line in kept_lines(elsewhere):
        console().print(f"{line}, and this app has {outbox.broker} (nxs spool move)", markup=False)
    if done.trouble:
        left = outbox.replay().batches.waiting()
        raise NotSent(f"{left} still wait: {done.trouble}")


@spool.command()
def move(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="The broker that rows wait for, as shown.")],
) -> None:
    """Have what waits for an address wait for the app's broker: it is the same, and has moved."""
    outbox = _outbox(context)
    count = readdress(outbox.spool, address, outbox.broker) if outbox.spool.exists() else 0
    console().print(f"{count} wait for {outbox.broker} now", markup=False)


@spool.command("drop")
def drop_(context: typer.Context, ids: Ids) -> None:
    """Remove rows for good: they are not sent. One that was being sent may run all the same."""
    outbox = _outbox(context)
    count = drop(outbox.spool, ids) if outbox.spool.exists() else 0
    console().print(f"{count} dropped")


def _outbox(context: typer.Context) -> Outbox:
    runtime: Runtime = context.obj.runtime()
    return outbox_of(runtime.app)


def _print_rows(context: typer.Context, found: list[Kept]) -> None:
    if not found:
        return
    runtime: Runtime = context.obj.runtime()
    now = runtime.clock.now()
    table = listing("ROW", "TASK", "ID", "LIST", "SINCE", "WHY")
    for row in found:
        told = _told(row)
        why = f"refused: {row.refused}" if row.refused else row.why
        table.add_row(
            str(row.id),
            told["task"],
            told["task_id"],
            ascii(row.list)[1:-1],
            age(now - row.at),
            why,
        )
    console().print(table)


def _told(row: Kept) -> dict[str, Any]:
    try:
        envelope = read(row.message)
        task, task_id = envelope.task, envelope.task_id
    except MessageError:
        task, task_id = "", row.task_id
    return {
        "row": row.id,
        "task": task,
        "task_id": task_id,
        "list": row.list,
        "broker": row.broker,
        "since": row.at,
        "why": row.why,
        "refused": row.refused,
        "tried": bool(row.producer),
        "unique_key": row.unique_key,
        "size": len(row.message),
    }
