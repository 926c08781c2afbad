"""Figures as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from bench.figure import Figure

_VERDICTS = {None: ("", ""), True: ("yes", "green"), False: ("NO", "bold red")}


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print the figures; those with a goal say whether it is met."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    seeded = any(figure.least is not None for figure in figures)
    names = ("metric", "value", "peer", "ratio", *(("seeds",) if seeded else ()), "goal", "met")
    for name in names:
        side: JustifyMethod = "right" if name in ("value", "ratio") else "left"
        table.add_column(name, justify=side, no_wrap=True)
    for figure in figures:
        word, style = _VERDICTS[figure.passed]
        table.add_row(
            figure.metric,
            f"{number(figure.value)} {figure.unit}",
            _peer(figure),
            "" if figure.ratio is None else _ratio(figure.ratio),
            *((_seeds(figure),) if seeded else ()),
            "" if figure.goal is None else figure.goal.bound,
            Text(word, style=style),
        )
    console.print(table)


def number(value: float) -> str:
    """Four digits, or all before the point: `12.34`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 10 else number(ratio)


def _seeds(figure: Figure) -> str:
    if figure.least is None or figure.most is None:
        return ""
    return "–".join(f"{n:,.0f}" if n >= 100 else f"{n:.3g}" for n in (figure.least, figure.most))


def _peer(figure: Figure) -> str:
    if figure.peer is None or figure.peer_value is None:
        return figure.peer or ""
    return f"{figure.peer} {number(figure.peer_value)}"
