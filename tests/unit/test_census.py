"""The census example: what it counts, what it makes of bad files, what its ledger can prove."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from examples.census import files, ledger, measure, progress, run, tasks

# --- measure -----------------------------------------------------------------------------------


def complexity(source: str) -> int:
    return measure.shape(source.encode()).complexity


@pytest.mark.parametrize(
    ("source", "points"),
    [
        ("x = 1", 0),
        ("if a: pass\nelif b: pass\nelse: pass", 2),
        ("x = 1 if a else 2", 1),
        ("for a in b: pass\nelse: pass", 1),
        ("while a: pass", 1),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 2),
        ("with a: pass", 0),
        ("assert a", 0),
        ("a and b and c or d", 3),
        ("[x for x in y if x if not x]", 3),
        ("{x: z for x in y for z in x}", 2),
        ("f = lambda: 1 if a else 2", 1),
        ("match a:\n case 1: pass\n case [b]: pass\n case _: pass", 2),
        ("match a:\n case _ if b: pass", 1),
        ("match a:\n case b: pass", 1),
        ("try: pass\nexcept* A: pass", 1),
    ],
)
def test_decision_points(source: str, points: int) -> None:
    assert complexity(source) == 1 + points


def test_a_function_is_a_block_of_its_own() -> None:
    source = b"""
import os
from a import b, c
class K:
    if os: x = 1
    def hard(self):
        def inner():
            return 1 if a else 2
        for x in y:
            if x or z: pass
async def easy():
    async for x in y: pass
"""
    found = measure.shape(source)
    assert (found.functions, found.classes, found.imports) == (3, 1, 2)
    # the module 2 (its class body has an if), hard 4, inner 2, easy 2
    assert found.complexity == 10
    assert (found.peak, found.peak_name) == (4, "K.hard")
    assert found.error is None


def test_an_inner_function_is_named_by_its_surroundings() -> None:
    found = measure.shape(b"class K:\n def f(self):\n  def g():\n   if a: pass")
    assert found.peak_name == "K.f.g"


def test_an_empty_file_is_one_empty_block() -> None:
    assert measure.shape(b"") == measure.Shape(complexity=1, peak=1, peak_name=measure.MODULE)
    assert measure.lines(b"") == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"def f(:\n", ["cannot be parsed", "line 1"]),
        (b"print 'two'\n", ["cannot be parsed", "line 1"]),
        (b"x = '\xff'\n", ["cannot be decoded"]),
        (b"# coding: utf-8\nx = '\xff'\n", ["cannot be decoded"]),
        (b"# coding: no-such-code\n", ["cannot be decoded", "no-such-code"]),
        (b"x = 1\0\n", ["cannot be parsed", "null bytes"]),
        (b"(" * 5000, ["cannot be parsed"]),
        (b"-" * 200_000 + b"1", ["cannot be parsed"]),
    ],
)
def test_a_bad_file_is_a_result_with_an_error(data: bytes, words: list[str]) -> None:
    found = measure.shape(data)
    assert found.error is not None
    assert [word for word in words if word not in found.error] == []
    assert len(found.error) <= 160
    assert replace(found, error=None) == measure.Shape()


@pytest.mark.parametrize(
    "data", [b"# coding: latin-1\nx = '\xe4' if a else 1\n", b"\xef\xbb\xbfx = 1 if a else 2\n"]
)
def test_a_file_is_decoded_by_its_own_coding(data: bytes) -> None:
    assert (measure.shape(data).error, measure.shape(data).complexity) == (None, 2)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    found = measure.shape(data)
    assert (found.complexity == 0) == (found.error is not None)


def test_a_deep_tree_is_walked() -> None:
    found = measure.shape(b"x = " + b" + ".join([b"(1 if a else 2)"] * 600))
    assert (found.error, found.complexity) == (None, 601)


def test_lines_by_any_line_end() -> None:
    assert measure.lines(b"a\nb\r\nc\rd") == 4
    assert measure.lines(b"a\n") == 1


def test_pack_keeps_the_smallest() -> None:
    data = b"def f(x): return x\n" * 400
    sizes = [len(zlib.compress(data, 9)), len(lzma.compress(data))]
    packed = measure.pack(data)
    assert 0 < packed.size <= min(sizes)
    assert packed.codec in ("zlib", "bzip2", "lzma")
    assert measure.pack(b"x").codec == "zlib"


# --- files -------------------------------------------------------------------------------------


def test_the_listing_leaves_out_other_peoples_packages(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "a/d.txt", "site-packages/e.py", "a/__pycache__/f.py"):
        files.write(tmp_path / name, b"")
    assert files.listing(tmp_path) == ["a/c.py", "b.py"]


@pytest.mark.parametrize("name", ["../x.py", "a/../../x.py", "/etc/x.py"])
def test_a_name_cannot_lead_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not below"):
        files.locate(tmp_path, name)


def test_a_name_below_is_found(tmp_path: Path) -> None:
    assert files.locate(tmp_path, "a/../b.py") == tmp_path / "b.py"


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_replaces_and_leaves_nothing_else(durable: bool, tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        files.write(tmp_path / "new" / "x", data, durable=durable)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "new").iterdir()] == [("x", b"two")]


# --- ledger ------------------------------------------------------------------------------------


def entry(file: str, kind: str = "cpu", **changes: Any) -> ledger.Entry:
    base = ledger.Entry(f"{file}-{kind}", file, kind, "one@host", 10.0, 11.0, 1)
    return replace(base, **changes)


def entries_of(*names: str) -> list[ledger.Entry]:
    return [entry(name, kind) for name in names for kind in ledger.KINDS]


def test_once_per_kind_is_exact() -> None:
    verdict = ledger.check(["a.py", "b.py"], [*entries_of("a.py", "b.py"), entry("r", "report")])
    assert verdict.exact
    assert verdict == ledger.Verdict([], [], [])


def test_what_is_missing_doubled_or_unexpected_is_named() -> None:
    seen = [*entries_of("a.py", "c.py"), entry("a.py", "io"), entry("b.py")]
    verdict = ledger.check(["a.py", "b.py"], seen)
    assert not verdict.exact
    assert verdict.missing == ["b.py (io)"]
    assert verdict.doubled == ["a.py (io): 2 times"]
    assert verdict.unexpected == ["c.py (cpu)", "c.py (io)"]


def test_the_reader_gives_each_line_once(tmp_path: Path) -> None:
    reader = ledger.Reader(tmp_path / "none yet")
    assert reader.read() == []
    reader = ledger.Reader(tmp_path)
    ledger.append(tmp_path, entry("a.py"))
    ledger.append(tmp_path, entry("b.py", pid=2))
    assert {e.file for e in reader.read()} == {"a.py", "b.py"}
    assert reader.read() == []
    ledger.append(tmp_path, entry("c.py"))
    assert [e.file for e in reader.read()] == ["c.py"]
    assert len(reader.entries) == 3
    assert len(list(tmp_path.iterdir())) == 2, "one file per process"


def test_a_line_without_its_end_is_read_when_it_is_whole(tmp_path: Path) -> None:
    ledger.append(tmp_path, entry("a.py"))
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    reader = ledger.Reader(tmp_path)
    path.write_bytes(whole + whole[:20])
    assert len(reader.read()) == 1
    path.write_bytes(whole + whole)
    assert len(reader.read()) == 1
    assert (len(reader.entries), reader.broken) == (2, [])


@pytest.mark.parametrize("line", ["not json", "[]", "3", '{"file": "a.py"}'])
def test_a_broken_line_is_kept_and_stops_nothing(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(line + "\n")
    ledger.append(tmp_path, entry("a.py"))
    reader = ledger.Reader(tmp_path)
    assert [e.file for e in reader.read()] == ["a.py"]
    assert reader.broken == [f"x.jsonl: {line}"]


def test_a_node_name_cannot_lead_out_of_the_ledger(tmp_path: Path) -> None:
    ledger.append(tmp_path / "ledger", entry("a.py", instance="../../x@y"))
    assert [p.name for p in (tmp_path / "ledger").iterdir()] == [".._.._x@y.1.jsonl"]


# --- tasks, on a plain Celery app ----------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of two files, and a plain app on which the tasks are called."""
    Celery("plain", set_as_current=True)
    folder = tmp_path / "lib"
    files.write(folder / "a.py", b"def f(x):\n    return 1 if x else 2\n")
    files.write(folder / "sub" / "bad.py", b"def f(:\n")
    monkeypatch.setattr(files, "stdlib", lambda: folder)
    return folder


def test_the_tasks_say_what_they_are_bound_by() -> None:
    assert (tasks.examine.kind, tasks.copy.kind) == ("cpu", "io")


def test_examine_counts_and_writes_the_ledger(library: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    data = (library / "a.py").read_bytes()
    found = tasks.examine.apply(("a.py", str(work)), task_id="t-1").get()
    assert (found["functions"], found["complexity"], found["lines"]) == (1, 3, 2)
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(json.dumps(found)) < 400, "the callback receives all of them"
    reader = ledger.Reader(work / "ledger")
    [line] = reader.read()
    assert (line.task_id, line.file, line.kind) == ("t-1", "a.py", "cpu")
    assert line.start <= line.end


def test_copy_stores_what_it_read(library: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    found = tasks.copy.apply(("sub/bad.py", str(work))).get()
    stored = (work / "copies/sub/bad.py.z").read_bytes()
    assert zlib.decompress(stored) == (library / "sub/bad.py").read_bytes()
    assert (found["packed"], found["lines"], found["error"]) == (len(stored), 1, None)


def test_a_file_that_is_not_there_is_a_result(library: Path, tmp_path: Path) -> None:
    for task in (tasks.examine, tasks.copy):
        found = task.apply(("gone.py", str(tmp_path / "work"))).get()
        assert found["error"].startswith("cannot be read: ")


def census(tmp_path: Path) -> tuple[Path, list[str]]:
    """Run every task of a small census here, one after the other."""
    names = files.listing(files.stdlib())
    work = tmp_path / "out" / "runs" / "r1"
    plan = {"run": "r1", "python": "3.11.0", "files": names}
    files.write(work / "plan.json", json.dumps(plan).encode())
    both = (tasks.examine, tasks.copy)
    rows = [task.apply((name, str(work))).get() for name in names for task in both]
    assert tasks.write_report.apply((rows, str(work))).get() == {"files": 2, "exact": True}
    return work, names


def conclude(work: Path, names: list[str], problem: str = "") -> tuple[int, str]:
    text = io.StringIO()
    reader = ledger.Reader(work / "ledger")
    out = work.parents[1]
    code = run.conclude(Console(file=text, width=40), out, work, names, reader, problem)
    return code, text.getvalue()


@pytest.mark.usefixtures("library")
def test_an_exact_census_ends_with_zero_and_a_report(tmp_path: Path) -> None:
    work, names = census(tmp_path)
    code, text = conclude(work, names)
    assert code == 0
    assert "most complex module: a.py (complexity 3)\n" in text
    assert "files without a syntax tree: 1 " in text
    assert "2 examined, 2 copied\n" in text
    assert json.loads((tmp_path / "out/report.json").read_text())["doubts"]["missing"] == []
    assert (tmp_path / "out/report.html").exists()
    assert not (work / "copies").exists()


@pytest.mark.usefixtures("library")
def test_a_census_that_is_not_exact_ends_with_one_and_the_list(tmp_path: Path) -> None:
    work, names = census(tmp_path)
    tasks.copy.apply(("a.py", str(work)))
    code, text = conclude(work, [*names, "lost.py"])
    assert code == 1
    assert "2 not processed:\n  lost.py (cpu)\n  lost.py (io)\n" in text
    assert "1 processed more than once:\n  a.py (io): 2 times\n" in text
    assert str(work) in text


def test_a_failed_chord_ends_with_one_and_the_reason(tmp_path: Path) -> None:
    code, text = conclude(tmp_path / "out/runs/r1", ["a.py"], "the chord failed: [no] disk")
    assert code == 1
    assert "the chord failed: [no] disk" in text


def test_nothing_to_count_is_said(tmp_path: Path) -> None:
    text = io.StringIO()
    assert run.run(Celery("plain"), Console(file=text), tmp_path, only=[]) == 1
    assert "nothing to count" in text.getvalue()


# --- progress ----------------------------------------------------------------------------------


def test_a_log_gets_a_line_per_tenth() -> None:
    text = io.StringIO()
    names = [f"{number}.py" for number in range(20)]
    with progress.meter(Console(file=text), len(names)) as meter:
        meter.submitted()
        for name in names:
            meter.take(entries_of(name))
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "examine 2/20, copy 2/20"
    assert lines[-1] == "examine 20/20, copy 20/20"


def test_a_terminal_gets_bars() -> None:
    text = io.StringIO()
    with progress.meter(Console(file=text, force_terminal=True, width=80), 4) as meter:
        meter.submitted()
        meter.take(entries_of("a.py", "b.py", "c.py"))
    assert "3/4" in text.getvalue()


def test_a_second_execution_moves_no_bar() -> None:
    meter = progress.Meter(3)
    meter.take([entry("a.py"), entry("a.py"), entry("a.py", "io"), entry("r", "report")])
    assert (meter.done("cpu"), meter.done("io"), meter.all_done) == (1, 1, 2)
