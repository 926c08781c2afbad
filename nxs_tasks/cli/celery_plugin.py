"""`celery -A app nxs …`: the same commands, on the app that Celery has loaded.

Celery's command line is click; NXS's is typer, which brings a click of its own. So this is one
click command that hands its arguments over.
"""

from __future__ import annotations

import click


@click.command(
    name="nxs",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def nxs(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run, watch and explain the fleet of this app."""
    from nxs_tasks.cli.main import run

    run(arguments, context.obj.app)
