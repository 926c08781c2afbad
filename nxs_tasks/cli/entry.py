"""`nxs`: the entry point. A probe is answered before anything that takes its time is loaded."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command that is named on the command line."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-A"], ["--app"]):
        # It does not matter to a probe, which reads what the worker has left.
        del arguments[:2]
    if arguments[:1] == ["probe"]:
        from nxs_tasks.cli.probe import probe

        sys.exit(probe(arguments[1:]))
    from nxs_tasks.cli.main import run as run_command

    run_command()
