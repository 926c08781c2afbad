"""`nxs inflight`: who holds which message, since when, with which epoch."""

from __future__ import annotations

from typing import Any

import typer

from nxs_tasks.cli.output import UNKNOWN, AsJson, age, console, listing, print_json
from nxs_tasks.policy.fleet.rescue import why_gone
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.queues import Queues


def inflight(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every task that a process holds: taken off its queue, and not yet done."""
    runtime: Runtime = context.obj.runtime()
    store = runtime.store()
    snapshot = store.snapshot(full=True)
    gone = {(h.instance, h.epoch): why_gone(h, snapshot) for h in snapshot.holders}
    rows: list[dict[str, Any]] = [
        {
            "task_id": h.envelope.task_id,
            "task": h.envelope.task,
            "instance": h.instance,
            "epoch": h.epoch,
            "since": h.since,
            "held_s": h.for_s(snapshot.taken_at),
            "lost_holders": len(h.envelope.lost),
            "gone": gone.get((h.instance, h.epoch), ""),
        }
        for h in Queues(store).all_held()
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print("nobody holds a task")
        return
    table = listing("TASK", "ID", "HOLDER", "EPOCH", "FOR", "LOST")
    for row in rows:
        table.add_row(
            row["task"] or UNKNOWN,
            row["task_id"] or UNKNOWN,
            row["instance"],
            str(row["epoch"]),
            age(row["held_s"]),
            str(row["lost_holders"]),
        )
    console().print(table)
    for reason in sorted({r["gone"] for r in rows if r["gone"]}):
        console().print(f"! held by a process that is gone ({reason}): it is rescued", markup=False)
