"""The census example: what its report says, and what its page may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.census import chart, ledger, page, report
from tests.unit.test_census import entries_of, entry

# --- report ------------------------------------------------------------------------------------


def row(file: str, kind: str = "cpu", **changes: Any) -> report.Row:
    shape = {"functions": 2, "classes": 1, "imports": 3, "complexity": 5, "peak": 4}
    content = {"bytes": 100, "lines": 10, "sha256": "aa", "packed": 40, "error": None}
    extra = {**shape, "peak_name": "f", "codec": "zlib"} if kind == "cpu" else {}
    return {"file": file, "kind": kind, **content, **extra, **changes}


def rows_of(*names: str) -> list[report.Row]:
    return [row(name, kind) for name in names for kind in ledger.KINDS]


def built(
    names: Sequence[str], rows: Sequence[report.Row], entries: Sequence[ledger.Entry]
) -> report.Report:
    return report.build(report.Plan("r1", "3.11.0", list(names)), rows, entries, 0.0)


def test_totals_and_shares() -> None:
    entries = [
        entry("a.py", "cpu", start=10.0, end=14.0),
        entry("a.py", "io", start=10.0, end=11.0, pid=2),
        entry("b.py", "cpu", instance="two@host", start=12.0, end=20.0),
        entry("b.py", "io", instance="two@host", start=10.0, end=12.0),
        entry("report.json", "report", start=20.0, end=90.0),
    ]
    rows = [*rows_of("a.py"), row("b.py", complexity=9), row("b.py", "io")]
    found = built(["a.py", "b.py"], rows, entries)
    totals = found.totals
    assert (totals.files, totals.executions, totals.seconds) == (2, 4, 10.0)
    assert (totals.lines, totals.bytes, totals.packed) == (20, 200, 80)
    assert (totals.definitions, totals.imports, totals.complexity) == (6, 6, 14)
    assert totals.files_per_second == pytest.approx(0.2)
    assert [r["file"] for r in found.most_complex] == ["b.py", "a.py"]
    one, two = found.instances
    assert (one.instance, one.processes, one.executions) == ("one@host", 2, {"cpu": 1, "io": 1})
    assert (two.instance, two.seconds) == ("two@host", {"cpu": 8.0, "io": 2.0})
    assert found.doubts.none


def test_busy_slots_add_up_to_the_busy_seconds() -> None:
    entries = [entry("a.py", start=10.0, end=13.3), entry("b.py", start=11.7, end=22.0)]
    found = built(["a.py"], [], entries)
    [share] = found.instances
    assert sum(share.busy) * found.bucket_s == pytest.approx(13.6, abs=0.02)
    assert max(share.busy) == pytest.approx(2.0)
    assert share.busy[-1] == pytest.approx(1.0)


def test_a_missing_and_a_doubled_file_are_in_the_report_and_on_the_page() -> None:
    entries = [*entries_of("a.py")[:1], *entries_of("b.py"), entry("b.py")]
    found = built(["a.py", "b.py"], rows_of("a.py", "b.py"), entries)
    assert not found.doubts.none
    assert found.doubts.missing == ["a.py (io)"]
    assert found.doubts.doubled == ["b.py (cpu): 2 times"]
    html = page.render(found)
    assert "Not exact" in html
    assert "a.py (io)" in html
    assert "b.py (cpu): 2 times" in html
    assert json.loads(report.as_json(found))["doubts"]["missing"] == ["a.py (io)"]


def test_a_result_that_got_lost_is_unreported() -> None:
    found = built(["a.py", "b.py"], rows_of("a.py", "b.py")[:3], entries_of("a.py", "b.py"))
    assert found.doubts.unreported == ["b.py (io)"]
    assert found.doubts.missing == []


def test_kinds_that_saw_different_bytes_disagree() -> None:
    rows = [row("a.py"), row("a.py", "io", sha256="bb"), *rows_of("b.py")]
    found = built(["a.py", "b.py"], rows, entries_of("a.py", "b.py"))
    assert found.doubts.disagreeing == ["a.py"]
    assert not found.doubts.none


def test_a_file_with_an_error_is_listed_and_ranked_nowhere() -> None:
    bad = row("bad.py", error="cannot be parsed: x", complexity=0, peak=0, functions=0)
    found = built(["a.py", "bad.py"], [row("a.py"), bad], [])
    assert found.unparsed == [{"file": "bad.py", "error": "cannot be parsed: x"}]
    assert found.totals.unparsed == 1
    assert [r["file"] for r in found.most_complex] == ["a.py"]
    assert [r["file"] for r in found.peaks] == ["a.py"]


def test_a_report_of_nothing_can_be_drawn() -> None:
    found = built([], [], [])
    assert found.totals.files_per_second == 0
    assert "Exact" in page.render(found)


# --- page and charts ---------------------------------------------------------------------------


class Tags(HTMLParser):
    """Collects the elements, their addresses, and whether each is closed."""

    VOID = frozenset({"meta", "rect", "line", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [f"{n}={v}" for n, v in attrs if n in ("src", "href", "xlink:href")]
        if tag not in self.VOID or tag in ("rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


HOSTILE = "<script>alert('x')</script>\"&.py"


def hostile() -> report.Report:
    entries = [replace(e, instance=HOSTILE) for e in entries_of(HOSTILE)]
    rows = [row(HOSTILE, peak_name=HOSTILE), row("b.py", error=HOSTILE, complexity=0)]
    plan = report.Plan(HOSTILE, HOSTILE, [HOSTILE, "lost" + HOSTILE])
    return report.build(plan, rows, [*entries, entries[0]], 0.0, [HOSTILE])


def test_the_page_escapes_every_name() -> None:
    html = page.render(hostile())
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 8
    assert not re.search(r"&(?!lt;|gt;|amp;|quot;|#x27;)", html)


@pytest.mark.parametrize("found", [hostile(), built([], [], [])])
def test_the_page_is_well_formed_and_needs_nothing_from_outside(found: report.Report) -> None:
    html = page.render(found)
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert "svg" in tags.seen
    assert not {"script", "link", "img", "iframe"} & tags.seen
    assert tags.addresses == []
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_has_both_themes() -> None:
    assert "prefers-color-scheme: dark" in page.render(built([], [], []))


def widths(svg: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect[^>]* width="([0-9.]+)"', svg)]


def test_bars_are_in_proportion() -> None:
    rows = [
        chart.Bar(str(value), [chart.Part(value, "cpu", "")], str(value)) for value in (400, 100, 0)
    ]
    wide, narrow = widths(chart.bars("t", rows))
    assert wide + 2 == pytest.approx(4 * (narrow + 2), rel=0.01)
    assert wide < chart.WIDTH


def test_lanes_without_time_are_drawn() -> None:
    assert "<svg" in chart.lanes("t", [chart.Lane("one", [])], 0.0)


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_ticks_are_few_and_round(span: float) -> None:
    step = chart.tick(span)
    assert 4 <= span / step <= 10
    assert f"{step:.0e}"[0] in "125"


def test_a_long_name_is_cut_in_the_middle() -> None:
    assert chart.shorten("a/b.py", 32) == "a/b.py"
    cut = chart.shorten("celery@" + "x" * 80 + "/end.py", 32)
    assert len(cut) == 32
    assert cut.startswith("celery@")
    assert cut.endswith("/end.py")
