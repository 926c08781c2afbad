"""Draws `docs/fleet.svg`: `nxs status` of a real fleet at work. Used by `make picture`.

It is a `--work` of `nxs up`: while the census runs, the table is taken and exported by rich.
"""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.census import files
from examples.census.run import run
from nxs_tasks.cli.status import FleetStatus, collect, render
from nxs_tasks.clock import wait_until
from nxs_tasks.runtime import runtime_of

PICTURE = Path(__file__).with_name("fleet.svg")
FILES = 600
#: The busiest of so many looks is drawn.
CHOICE = 50
PATIENCE_S = 60.0


def draw(app: Any, console: Console, out: Path) -> int:
    """Run a part of the census, and draw the fleet at its busiest moment seen."""
    runtime = runtime_of(app)
    quiet = Console(file=io.StringIO())
    names = files.listing(files.stdlib())[:FILES]
    codes: list[int] = []
    census = threading.Thread(target=lambda: codes.append(run(app, quiet, out, only=names)))
    census.start()

    seen: list[FleetStatus] = []

    def at_work() -> bool:
        status = collect(runtime)
        if all(row.running and row.succeeded for row in status.instances):
            seen.append(status)
        return len(seen) == CHOICE or not census.is_alive()

    wait_until(at_work, PATIENCE_S, poll_s=0.01)
    census.join()
    if not seen:
        console.print("no moment was seen at which every instance was at work")
        return 1
    status = max(seen, key=lambda s: sum(row.running or 0 for row in s.instances))
    canvas = Console(record=True, width=80, file=io.StringIO(), highlight=False)
    canvas.print(render(status))
    # rich links a font from elsewhere; a picture of ours asks nobody for anything.
    svg = re.sub(r"@font-face {.*?}\s*", "", canvas.export_svg(title="nxs status"), flags=re.DOTALL)
    PICTURE.write_text(svg)
    console.print(f"wrote {PICTURE}", soft_wrap=True)
    return codes[0]
