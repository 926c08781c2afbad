"""`python -m nxs_tasks.cli`: the same as `nxs`."""

from nxs_tasks.cli.entry import run

run()
