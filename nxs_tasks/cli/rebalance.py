"""`nxs rebalance`: move what waits from long lines to short ones, or say what would be moved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nxs_tasks.cli.output import AsJson, console, listing, print_json
from nxs_tasks.control.rebalancing import Plan
from nxs_tasks.control.rebalancing import plan as make_plan
from nxs_tasks.control.rebalancing import rebalance as do_rebalance
from nxs_tasks.model.decision import Migrate, Nothing, Outcome
from nxs_tasks.runtime import Runtime


def rebalance(
    context: typer.Context,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be moved, and why not more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move waiting tasks from long lines to short ones, as the control plane does every 30 s.

    The same limits hold: an instance takes part in one migration a minute. Exit code 1 if tasks
    were to be moved and none was.
    """
    runtime: Runtime = context.obj.runtime()
    if plan:
        found = make_plan(runtime)
        if as_json:
            print_json(_plan_data(found))
        else:
            _show_plan(found)
        return
    outcomes = do_rebalance(runtime)
    if as_json:
        print_json([_outcome_data(o) for o in outcomes])
    else:
        _show_outcomes(outcomes)
    if outcomes and not any(o.applied for o in outcomes):
        raise typer.Exit(1)


def _move_data(move: Migrate) -> dict[str, Any]:
    # Not what the target knows: that is long, and `nxs story` has it.
    return {name: value for name, value in asdict(move).items() if name != "knows"}


def _plan_data(found: Plan) -> dict[str, Any]:
    stays = [d for d in found.decisions if isinstance(d, Nothing)]
    return {
        "nothing": found.nothing,
        "moves": [_move_data(m) for m in found.moves],
        "stays": [asdict(d) for d in stays],
    }


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    move = _move_data(outcome.decision) if isinstance(outcome.decision, Migrate) else {}
    return {**move, "applied": outcome.applied, "detail": outcome.detail}


def _show_plan(found: Plan) -> None:
    if found.nothing:
        console().print(f"nothing would be moved: {found.nothing}", markup=False)
        return
    if found.moves:
        table = listing("FROM", "TO", "TASKS", "WHY")
        for move in found.moves:
            table.add_row(move.source, move.target, str(move.tasks), move.reason)
        console().print(table, markup=False)
    else:
        console().print("nothing would be moved")
    for stays in found.decisions:
        if isinstance(stays, Nothing):
            line = f"{stays.instance} stays as it is: {stays.reason}"
            console().print(line, markup=False, soft_wrap=True)


def _show_outcomes(outcomes: list[Outcome]) -> None:
    if not outcomes:
        console().print("nothing to move (`nxs rebalance --plan` says why)", markup=False)
    for outcome in outcomes:
        move = outcome.decision
        if isinstance(move, Migrate):
            done = outcome.detail if outcome.applied else f"not moved, {outcome.detail}"
            console().print(f"{move.source} → {move.target}: {done}", markup=False, soft_wrap=True)
