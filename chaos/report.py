"""Results as a table with a column for each side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from chaos.ordeal import Result
from chaos.plan import MODES
from chaos.verdict import NO_EXCUSE


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(result.side.title, justify="right", no_wrap=True)
    columns = [dict(_rows(result)) for result in results]
    for name in _names(columns):
        table.add_row(name, *(column.get(name, "0") for column in columns))
    console.print(table)


def _names(columns: Iterable[dict[str, str]]) -> list[str]:
    """Of all rows, each once, in the order in which they come."""
    return list(dict.fromkeys(name for column in columns for name in column))


def _rows(result: Result) -> Iterable[tuple[str, str]]:
    verdict, kills = result.verdict, result.acts.get("hard", 0)
    yield "tasks accepted", f"{verdict.accepted:,}"
    yield "  a second", f"{result.rate:,.0f}"
    yield "  refused or unanswered", f"{verdict.unanswered:,}"
    for mode in MODES:
        if result.acts.get(mode) or result.passed_over.get(mode):
            yield f"acts: {mode}", f"{result.acts.get(mode, 0):,}"
    yield "LOST", f"{len(verdict.lost):,}"
    yield "  for each act", f"{len(verdict.lost) / max(1, sum(result.acts.values())):.3f}"
    waits = sum(map(len, verdict.waiting.values()))
    yield "not done, still somewhere", f"{waits:,}"
    yield "started once more", f"{len(verdict.duplicates):,}"
    for cause, count in sorted(verdict.causes.items()):
        if cause not in NO_EXCUSE:
            yield f"  because of: {cause}", f"{count:,}"
    killed = verdict.causes.get("hard", 0)
    yield "  by SIGKILL, for each", f"{killed / kills:.2f}" if kills else "-"
    yield "  sent twice", f"{verdict.causes.get('sent twice', 0):,}"
    yield "  UNEXPLAINED", f"{verdict.causes.get('unexplained', 0):,}"
    yield "LEFT OVER", f"{sum(verdict.left.values()):,}"
    for place, count in verdict.left.items():
        yield f"  {place}", f"{count:,}"
    yield "processes that ended by themselves", f"{len(result.surprises):,}"
    never = f"not within {result.side.settles_within_s:.0f} s"
    settled = result.settled_s
    yield "all done after the last act", never if settled is None else f"{settled:.1f} s"
