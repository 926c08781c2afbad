"""`nxs`: the command line of a fleet. Each command is a file beside this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from nxs_tasks.cli import (
    admit,
    cancel,
    drain,
    inflight,
    leader,
    locks,
    migrate,
    node,
    pause,
    probe,
    quarantine,
    rebalance,
    settings,
    shelves,
    spool,
    status,
    story,
    unique,
    up,
    why,
)
from nxs_tasks.cli.target import Target
from nxs_tasks.errors import NxsError

#: Exit code for an error that the user can mend; the message says how.
EXIT_ERROR = 2

cli = typer.Typer(
    name="nxs",
    help="Run, watch and explain a fleet of Celery workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    up.up,
    node.node,
    status.status,
    story.story,
    why.why,
    inflight.inflight,
    shelves.shelves,
    cancel.cancel,
    migrate.migrate,
    admit.admit,
    drain.cordon,
    drain.uncordon,
    drain.drain,
    pause.pause,
    pause.resume,
    rebalance.rebalance,
    leader.leader,
    locks.locks,
    settings.settings,
):
    cli.command()(command)
cli.add_typer(quarantine.quarantine, name="quarantine")
cli.add_typer(spool.spool, name="spool")
cli.add_typer(unique.unique, name="unique")


@cli.command(
    "probe",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
def _probe(arguments: Annotated[list[str] | None, typer.Argument(metavar="…")] = None) -> None:
    """Whether a worker on this machine is live, and ready: for systemd, Kubernetes, Docker."""
    # Here for `--help`, and for `celery -A app nxs`; `nxs probe` itself does not come so far.
    raise typer.Exit(probe.probe(arguments or []))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nxs {version('nxs-tasks')}")
        raise typer.Exit


@cli.callback()
def start(
    context: typer.Context,
    app: Annotated[
        str,
        typer.Option(
            "--app",
            "-A",
            metavar="MODULE",
            help="The Celery app with the fleet, as for `celery -A`. "
            "Default: NXS_APP, or the one of a running `nxs up`, or nxs_tasks.app.",
        ),
    ] = "",
    version_: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Choose the app that the commands work on."""
    if context.obj is None:
        context.obj = Target(app)


def run(arguments: Sequence[str] | None = None, celery_app: Any = None) -> None:
    """Entry point of `nxs`, and of `celery -A app nxs`, which brings the app along."""
    # Like `celery -A`: what is named on the command line may lie in the current folder.
    sys.path.insert(0, os.getcwd())
    try:
        cli(
            args=list(arguments) if arguments is not None else None,
            prog_name="nxs",
            obj=None if celery_app is None else Target("", celery_app),
        )
    except NxsError as error:
        print(f"nxs: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
