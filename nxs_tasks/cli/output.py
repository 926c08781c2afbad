"""How commands print: tables for people, JSON for programs, readable when piped."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

#: Shown where a value is unknown: never a zero.
UNKNOWN = "–"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console() -> Console:
    """A console on standard output. A pipe gets plain text, wide enough not to cut it."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=int(os.environ.get("COLUMNS", 120)), no_color=True)


def listing(*heads: str) -> Table:
    """An empty table of things. An id stands in one piece, to be copied; the rest may be folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head == "ID")
    return table


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=2, default=str))


def age(seconds: float | None) -> str:
    """`4s`, `3m`, `2h`, `5d`; `–` for unknown."""
    if seconds is None:
        return UNKNOWN
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def number(value: float | None, digits: int = 2) -> str:
    """`.83`, `1.00`; `–` for unknown."""
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text
