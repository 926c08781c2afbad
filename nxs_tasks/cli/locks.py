"""`nxs locks`: which locks of `fleet.lock` are held, and by whom."""

from __future__ import annotations

from dataclasses import asdict

import typer

from nxs_tasks.cli.output import AsJson, age, console, listing, print_json
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.holdings import Holding, holdings


def locks(context: typer.Context, as_json: AsJson = False) -> None:
    """List the locks of `fleet.lock` that are held now: by whom, by what, since when, its token.

    A task holds by its message, anybody else by a lease that its process renews.
    """
    runtime: Runtime = context.obj.runtime()
    store = runtime.store()
    held, now = list(holdings(store)), store.now()
    if as_json:
        print_json([asdict(one) for one in held])
        return
    if not held:
        console().print("no lock is held")
        return
    table = listing("LOCK", "HOLDER", "BY", "SINCE", "TOKEN")
    for one in held:
        table.add_row(one.name, _holder(one), _by(one, now), age(now - one.since), str(one.number))
    console().print(table)


def _holder(one: Holding) -> str:
    if not one.instance:
        return one.process
    return f"{one.instance} (epoch {one.epoch})"


def _by(one: Holding, now: float) -> str:
    if one.until is None:
        return f"{one.task or 'a task'} {one.task_id}".strip()
    return f"a lease, {age(one.until - now)} left"
