"""Rows and ledger to one report: totals, work per instance, and whether every file ran once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.census import files, ledger, page

Row = dict[str, Any]

_MOST_COMPLEX = 15
_PEAKS = 10
_BUCKETS = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run set out to do; written before the first task is submitted."""

    run: str
    python: str
    files: list[str]


@dataclass(frozen=True, slots=True)
class Totals:
    """The census in one line of numbers. `seconds` is the ledger's first start to last end."""

    files: int
    unparsed: int
    lines: int
    bytes: int
    packed: int
    functions: int
    classes: int
    imports: int
    complexity: int
    executions: int
    seconds: float

    @property
    def definitions(self) -> int:
        """Functions, methods and classes."""
        return self.functions + self.classes

    @property
    def files_per_second(self) -> float:
        """Files done (both kinds) per second."""
        return self.files / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one instance did. `busy` holds how many slots were busy, per bucket of the timeline."""

    instance: str
    processes: int
    executions: dict[str, int]
    seconds: dict[str, float]
    busy: list[float]


@dataclass(frozen=True, slots=True)
class Doubts:
    """All that speaks against the report; every list is empty when all is well."""

    missing: list[str]
    doubled: list[str]
    unexpected: list[str]
    unreported: list[str]
    disagreeing: list[str]
    broken_lines: list[str]

    @property
    def none(self) -> bool:
        """Whether every file ran exactly once per kind and both kinds saw the same bytes."""
        return not any(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows, and each file's row."""

    run: str
    python: str
    finished: str
    totals: Totals
    doubts: Doubts
    instances: list[Share]
    most_complex: list[Row]
    peaks: list[Row]
    codecs: dict[str, int]
    unparsed: list[Row]
    bucket_s: float
    files: list[Row]


def load_plan(work: Path) -> Plan:
    """The plan of a run's folder."""
    return Plan(**json.loads((work / "plan.json").read_text(encoding="utf-8")))


def write(rows: Sequence[Row], work: Path, now: float) -> dict[str, Any]:
    """Write `report.json` and `report.html` into the run's folder; a few numbers come back."""
    reader = ledger.Reader(work / "ledger")
    reader.read()
    report = build(load_plan(work), rows, reader.entries, now, reader.broken)
    files.write(work / "report.json", as_json(report).encode())
    files.write(work / "report.html", page.render(report).encode())
    return {"files": report.totals.files, "exact": report.doubts.none}


def as_json(report: Report) -> str:
    """The report as text; what is computed from other fields is spelled out."""
    raw = asdict(report)
    raw["totals"]["definitions"] = report.totals.definitions
    raw["totals"]["files_per_second"] = round(report.totals.files_per_second, 2)
    return json.dumps(raw, indent=1)


def build(
    plan: Plan,
    rows: Sequence[Row],
    entries: Sequence[ledger.Entry],
    now: float,
    broken: Sequence[str] = (),
) -> Report:
    """Put the report together. Pure: the clock and the ledger are given."""
    work = [entry for entry in entries if entry.kind != ledger.REPORT]
    start = min((entry.start for entry in work), default=0.0)
    seconds = max((entry.end for entry in work), default=0.0) - start
    bucket = seconds / _BUCKETS
    examined = list({row["file"]: row for row in rows if row["kind"] == "cpu"}.values())
    parsed = [row for row in examined if not row["error"]]
    return Report(
        run=plan.run,
        python=plan.python,
        finished=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        totals=_totals(examined, len(work), seconds),
        doubts=doubts(plan, rows, entries, broken),
        instances=_shares(work, start, bucket),
        most_complex=_top(parsed, "complexity", _MOST_COMPLEX),
        peaks=_top(parsed, "peak", _PEAKS),
        codecs=dict(Counter(row["codec"] for row in examined).most_common()),
        unparsed=[{"file": row["file"], "error": row["error"]} for row in examined if row["error"]],
        bucket_s=bucket,
        files=examined,
    )


def doubts(
    plan: Plan, rows: Sequence[Row], entries: Sequence[ledger.Entry], broken: Sequence[str]
) -> Doubts:
    """Compare plan, rows and ledger; each of the three was written by somebody else."""
    verdict = ledger.check(plan.files, entries)
    reported = {(row["file"], row["kind"]) for row in rows}
    wanted = [(file, kind) for file in plan.files for kind in ledger.KINDS]
    contents: dict[str, set[tuple[int, int, str]]] = defaultdict(set)
    for row in rows:
        contents[row["file"]].add((row["bytes"], row["lines"], row["sha256"]))
    return Doubts(
        missing=verdict.missing,
        doubled=verdict.doubled,
        unexpected=verdict.unexpected,
        unreported=[f"{file} ({kind})" for file, kind in wanted if (file, kind) not in reported],
        disagreeing=sorted(file for file, seen in contents.items() if len(seen) > 1),
        broken_lines=list(broken),
    )


def _totals(examined: Sequence[Row], executions: int, seconds: float) -> Totals:
    """Sums over the files that `examine` reported."""
    names = ("lines", "bytes", "packed", "functions", "classes", "imports", "complexity")
    sums = {name: sum(row[name] for row in examined) for name in names}
    return Totals(
        files=len(examined),
        unparsed=sum(1 for row in examined if row["error"]),
        executions=executions,
        seconds=round(seconds, 2),
        **sums,
    )


def _top(rows: Sequence[Row], key: str, count: int) -> list[Row]:
    """The `count` rows with the highest `key`, ties by name."""
    return sorted(rows, key=lambda row: (-row[key], row["file"]))[:count]


def _shares(entries: Sequence[ledger.Entry], start: float, bucket: float) -> list[Share]:
    """One share per instance, by name."""
    by_instance: dict[str, list[ledger.Entry]] = defaultdict(list)
    for entry in entries:
        by_instance[entry.instance].append(entry)
    return [
        Share(
            instance=name,
            processes=len({entry.pid for entry in mine}),
            executions={kind: sum(1 for e in mine if e.kind == kind) for kind in ledger.KINDS},
            seconds={
                kind: round(sum(e.end - e.start for e in mine if e.kind == kind), 2)
                for kind in ledger.KINDS
            },
            busy=_busy(mine, start, bucket),
        )
        for name, mine in sorted(by_instance.items())
    ]


def _busy(entries: Sequence[ledger.Entry], start: float, bucket: float) -> list[float]:
    """How many of the instance's slots were busy, on average, in each bucket of the timeline."""
    busy = [0.0] * _BUCKETS
    for entry in entries if bucket > 0 else ():
        first = max(int((entry.start - start) / bucket), 0)
        last = min(int((entry.end - start) / bucket), _BUCKETS - 1)
        for index in range(first, last + 1):
            left, right = start + index * bucket, start + (index + 1) * bucket
            busy[index] += max(min(entry.end, right) - max(entry.start, left), 0.0) / bucket
    return [round(value, 3) for value in busy]
