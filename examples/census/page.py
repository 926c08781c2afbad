"""The report as one HTML file: no script, no address, nothing from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from examples.census import chart

if TYPE_CHECKING:
    from examples.census.report import Doubts, Report

_SHOWN = 20

_STYLE = """
:root { color-scheme: light dark; --ground: #f7f7f5; --card: #ffffff; --ink: #1c1c1a;
  --soft: #63635e; --line: #e4e4df; --cpu: #2a6fc9; --io: #e0762b; --good: #1d7a43;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #151517; --card: #1e1f22; --ink: #ececea;
  --soft: #a3a39d; --line: #35363a; --cpu: #5b9bec; --io: #e58a49; --good: #5fc389;
  --bad: #f2857c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 17px; margin: 0 0 2px; }
p { margin: 0; }
.soft, .note { color: var(--soft); }
.note { font-size: 13px; margin-bottom: 14px; }
.verdict { margin: 20px 0; padding: 12px 16px; border-radius: 8px; background: var(--card);
  border: 1px solid var(--line); border-left: 4px solid var(--good); }
.verdict.bad { border-left-color: var(--bad); }
.verdict p { margin-top: 8px; }
.verdict b { color: var(--good); } .verdict.bad b { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin-bottom: 20px; }
@media (max-width: 640px) { .tiles { grid-template-columns: repeat(2, 1fr); } }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
section { padding: 18px 20px; margin-bottom: 20px; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 620px; height: auto; }
svg text { font-size: 12.5px; fill: var(--ink); dominant-baseline: central; }
svg .label { text-anchor: end; } svg .value { font-weight: 600; }
svg .mark { fill: var(--soft); font-size: 11.5px; } svg .mid { text-anchor: middle; }
svg .faint { fill: var(--soft); font-size: 11.5px; }
svg .cpu, .key.cpu::before { fill: var(--cpu); background: var(--cpu); }
svg .io, .key.io::before { fill: var(--io); background: var(--io); }
svg .area { fill: var(--cpu); opacity: 0.85; }
svg .axis { stroke: var(--soft); } svg .grid { stroke: var(--line); }
.key { margin-right: 16px; font-size: 13px; color: var(--soft); }
.key::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 2px;
  margin-right: 6px; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 13px; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px;
  overflow-wrap: anywhere; }
td.code:first-child { white-space: nowrap; }
ul { margin: 6px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; }
"""


def render(report: Report) -> str:
    """The whole page. Every name in it is escaped: file names are other people's text."""
    totals = report.totals
    head = (
        f"<h1>The standard library, counted</h1>"
        f'<p class="soft">Python {escape(report.python)} · {totals.files:,} files · '
        f"{totals.executions:,} executions on {len(report.instances)} instances · "
        f"{escape(report.finished)}</p>"
    )
    parts = (
        head,
        _verdict(report),
        _tiles(report),
        _complex(report),
        _work(report),
        _timeline(report),
        _peaks(report),
        _codecs(report),
        _unparsed(report),
        f"<footer>Run {escape(report.run)}. Each file's numbers are in report.json.</footer>",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Census of Python {escape(report.python)}</title>"
        f"<style>{_STYLE}</style></head>\n<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _verdict(report: Report) -> str:
    """The first thing to read: did every file run exactly once per kind?"""
    if report.doubts.none:
        return (
            '<div class="verdict"><b>✓ Exact.</b> Every file was examined once and copied once, '
            "and both saw the same bytes. A ledger says so that Celery knows nothing about.</div>"
        )
    return f'<div class="verdict bad"><b>✗ Not exact.</b>{_lists(report.doubts)}</div>'


def _lists(doubts: Doubts) -> str:
    """Each non-empty list of doubts, cut to a readable length."""
    named = {
        "never ran": doubts.missing,
        "ran more than once": doubts.doubled,
        "ran without being asked for": doubts.unexpected,
        "ran and is not in the results": doubts.unreported,
        "seen with different contents": doubts.disagreeing,
        "ledger lines that cannot be read": doubts.broken_lines,
    }
    out = ""
    for what, names in named.items():
        if names:
            shown = [f"<li>{escape(name)}</li>" for name in names[:_SHOWN]]
            if len(names) > _SHOWN:
                shown.append(f"<li>and {len(names) - _SHOWN:,} more</li>")
            out += f"<p>{len(names):,} {what}:</p><ul>{''.join(shown)}</ul>"
    return out


def _tiles(report: Report) -> str:
    """The totals."""
    totals = report.totals
    ratio = totals.packed / totals.bytes if totals.bytes else 0.0
    tiles = (
        (f"{totals.files:,}", "files"),
        (f"{totals.lines:,}", "lines"),
        (f"{totals.functions:,}", "functions and methods"),
        (f"{totals.classes:,}", "classes"),
        (f"{totals.imports:,}", "import statements"),
        (f"{totals.bytes / 1e6:.1f} MB", f"compress to {ratio:.0%}"),
        (f"{totals.seconds:,.1f} s", "first start to last end"),
        (f"{totals.files_per_second:,.0f}", "files per second"),
    )
    cells = (f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _complex(report: Report) -> str:
    """The most complex files."""
    rows = [
        chart.Bar(
            label=row["file"],
            parts=[
                chart.Part(
                    row["complexity"],
                    "cpu",
                    f"{row['file']}: {row['functions']:,} functions, {row['classes']:,} classes, "
                    f"{row['lines']:,} lines; most complex: {row['peak_name']} ({row['peak']})",
                )
            ],
            value=f"{row['complexity']:,}",
        )
        for row in report.most_complex
    ]
    title = "The most complex modules"
    note = "Cyclomatic complexity, summed over a file's functions and its module level."
    return _section(title, note, chart.bars(title, rows))


def _work(report: Report) -> str:
    """Executions and busy seconds per instance, by kind."""
    counts, times = [], []
    for share in report.instances:
        done, spent = share.executions, share.seconds
        counts.append(_split(share.instance, done, f"{sum(done.values()):,}", "executions"))
        times.append(_split(share.instance, spent, f"{sum(spent.values()):,.1f} s", "seconds"))
    note = (
        '<span class="key cpu">examine, bound by the CPU</span>'
        '<span class="key io">copy, bound by the disk</span>'
    )
    return _section("Executions per instance", note, chart.bars("Executions", counts)) + _section(
        "Busy seconds per instance", note, chart.bars("Busy seconds", times)
    )


def _split(name: str, values: dict[str, Any], total: str, unit: str) -> chart.Bar:
    """One instance's bar, a piece per kind."""
    parts = [chart.Part(value, kind, f"{kind}: {value:,} {unit}") for kind, value in values.items()]
    return chart.Bar(name, parts, total)


def _timeline(report: Report) -> str:
    """How busy each instance was, from the first task to the last."""
    rows = [chart.Lane(share.instance, share.busy) for share in report.instances]
    title = "Busy slots over time"
    note = "Tasks that an instance was running at once, from the first start to the last end."
    return _section(title, note, chart.lanes(title, rows, report.totals.seconds))


def _peaks(report: Report) -> str:
    """The most complex single functions."""
    rows = [(row["peak_name"], row["file"], f"{row['peak']:,}") for row in report.peaks]
    note = "The most complex block of each file; the ten highest."
    return _section("The hardest functions", note, _table(("Function", "File", "Complexity"), rows))


def _codecs(report: Report) -> str:
    """Which compressor made the smallest output, and how often."""
    rows = [
        chart.Bar(codec, [chart.Part(count, "cpu", f"{codec}: {count:,} files")], f"{count:,}")
        for codec, count in report.codecs.items()
    ]
    title = "The smallest of three compressors"
    return _section(title, "Files for which each one won.", chart.bars(title, rows))


def _unparsed(report: Report) -> str:
    """Files that no parser accepts: results, not failures."""
    if not report.unparsed:
        return ""
    rows = [(row["file"], row["error"]) for row in report.unparsed]
    note = "Mostly data of tests: wrong on purpose, or written for another version of Python."
    title = f"Files without a syntax tree: {len(rows):,}"
    return _section(title, note, _table(("File", "Why"), rows))


def _section(title: str, note: str, body: str) -> str:
    """A card; `note` and `body` are HTML."""
    return f'<section><h2>{escape(title)}</h2><p class="note">{note}</p>{body}</section>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a third column holds numbers."""
    styles = ("code", "code", "number")
    top = "".join(
        f'<th class="{style}">{escape(name)}</th>'
        for name, style in zip(head, styles, strict=False)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{style}">{escape(cell)}</td>'
            for cell, style in zip(row, styles, strict=False)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
