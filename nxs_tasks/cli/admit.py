"""`nxs admit`: let an instance in that FAILED or is withheld."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nxs_tasks.cli.output import AsJson, console, print_json
from nxs_tasks.control.admission import admit as do_admit
from nxs_tasks.runtime import Runtime


def admit(
    context: typer.Context,
    instance: Annotated[str, typer.Argument(help="Its id, as `nxs status` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Let an instance in at once that FAILED, or is withheld because it was lost so often."""
    runtime: Runtime = context.obj.runtime()
    done = do_admit(runtime, instance)
    if as_json:
        print_json(asdict(done))
    else:
        console().print(str(done), soft_wrap=True)
