"""Figures as a table for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from bench.figure import Figure

_VERDICTS = {None: ("", ""), True: ("yes", "green"), False: ("NO", "bold red")}


def show(figures: Iterable[Figure], console: Console) -> None:
    """Print the figures; those with a goal say whether it is met."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "value", "peer", "ratio", "goal", "met"):
        side: JustifyMethod = "right" if name in ("value", "ratio") else "left"
        table.add_column(name, justify=side, no_wrap=True)
    for figure in figures:
        word, style = _VERDICTS[figure.passed]
        table.add_row(
            figure.metric,
            f"{number(figure.value)} {figure.unit}",
            _peer(figure),
            "" if figure.ratio is None else f"{figure.ratio:.3f}",
            "" if figure.goal is None else figure.goal.bound,
            Text(word, style=style),
        )
    console.print(table)


def number(value: float) -> str:
    """Four digits, or all before the point: `12.34`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _peer(figure: Figure) -> str:
    if figure.peer is None or figure.peer_value is None:
        return figure.peer or ""
    return f"{figure.peer} {number(figure.peer_value)}"
