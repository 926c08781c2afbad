"""`nxs settings`: each effective value and who set it."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from typing import Any

import typer
from rich.table import Table

from nxs_tasks.celery_settings import WORKER_TRANSPORT, Change
from nxs_tasks.cli.output import AsJson, console, print_json
from nxs_tasks.runtime import Runtime
from nxs_tasks.settings import Settings
from nxs_tasks.store import safe_url


def _own(runtime: Runtime) -> list[dict[str, Any]]:
    return [
        {
            "name": f.name,
            "value": _shown(getattr(runtime.settings, f.name)),
            "unit": f.metadata["unit"],
            "set_by": runtime.sourced.sources[f.name],
            "why": f.metadata["why"],
        }
        for f in fields(Settings)
    ]


def _shown(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return safe_url(value) if isinstance(value, str) else value


def _celery(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    rows = [
        {
            "name": c.key,
            "value": str(c.after),
            "was": None if c.before is None else str(c.before),
            "set_by": "the app" if c.before == c.after else "NXS",
            "why": c.why,
        }
        for c in changes
    ]
    return rows + [
        {
            "name": f"broker_transport_options.{name}",
            "value": "in each worker",
            "was": None,
            "set_by": "NXS",
            "why": "every worker has keys, connections and a name of its own",
        }
        for name in WORKER_TRANSPORT
    ]


def settings(context: typer.Context, as_json: AsJson = False) -> None:
    """Print each setting of NXS, and each Celery setting that NXS sets, with who set it."""
    runtime: Runtime = context.obj.runtime()
    own, celery = _own(runtime), _celery(runtime.changes)
    if as_json:
        print_json({"nxs": own, "celery": celery})
        return
    out = console()
    for title, rows in (("NXS", own), ("Celery", celery)):
        table = Table(
            title=title, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for head in ("setting", "value", "set by", "why"):
            table.add_column(head, overflow="fold")
        for row in rows:
            unit = f" {row['unit']}" if isinstance(row["value"], int | float) else ""
            table.add_row(row["name"], f"{row['value']}{unit}", row["set_by"], row["why"])
        out.print(table)
        out.print()
