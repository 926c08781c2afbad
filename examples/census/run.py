"""Run the census: submit one chord, watch the ledger, check it, say what was found.

`run(app, console, out)` returns 0 when every file was processed exactly once per kind, else 1.
Each run has its own folder `out/runs/<id>` (plan, ledger, copies, report); the report of a
finished run is also put into `out`.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import chord
from celery.exceptions import TimeoutError
from kombu.exceptions import OperationalError
from rich.console import Console

from examples.census import files, ledger, tasks
from examples.census import progress as meters
from examples.census import report as reports
from nxs_tasks.clock import wait_until

#: The whole takes about half a minute on two cores; a slow machine gets thirty times that.
DEADLINE_S = 900.0
_POLL_S = 0.25
_HINT_AFTER_POLLS = 60
#: A file takes milliseconds; after a minute without one more, nobody works on what is missing.
_STALLED_AFTER_POLLS = 240
_SHOWN = 20


def run(app: Any, console: Console, out: Path, *, only: Sequence[str] | None = None) -> int:
    """Run the census on the workers of `app`; the report lands in `out`. 0 when it is exact.

    `only` takes a list of files in place of all. A Ctrl-C passes through.
    """
    names = sorted(set(only)) if only is not None else files.listing(files.stdlib())
    if not names:
        return _fail(console, f"no .py file below {files.stdlib()}: nothing to count")
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=2, interval_start=0.2, timeout=3)
    except (OperationalError, OSError) as error:
        return _fail(console, f"no broker: {error}")
    work = _prepare(out, names)
    _say(console, f"{len(names):,} files, {2 * len(names):,} tasks in one chord")
    with meters.meter(console, len(names)) as meter, _subscriptions(app):
        watch = Watch(_submit(app, names, work), work, console, meter)
        meter.submitted()
        ended = wait_until(watch.ended, DEADLINE_S, _POLL_S / 5)
    problem = watch.problem
    if not ended:
        problem = f"no report after {DEADLINE_S:.0f} s"
    elif not problem and not (work / "report.json").exists():
        problem = f"the report is not in {work}: do the workers share this folder?"
    return conclude(console, out, work, names, watch.reader, problem)


def _prepare(out: Path, names: Sequence[str]) -> Path:
    """Make the run's folder and write down what is expected, before anything is submitted."""
    run_id = uuid4().hex[:8]
    work = out.resolve() / "runs" / run_id
    plan = reports.Plan(run_id, platform.python_version(), list(names))
    files.write(work / "plan.json", json.dumps(asdict(plan)).encode())
    return work


def _submit(app: Any, names: Sequence[str], work: Path) -> Any:
    """One chord: each file once per kind, then the report. What nobody ran in time expires."""
    ours = (tasks.examine, tasks.copy, tasks.write_report)
    examine, copy, report = (app.tasks[task.name] for task in ours)
    header = [
        task.s(name, str(work)).set(expires=DEADLINE_S)
        for name in names
        for task in (examine, copy)
    ]
    return chord(header, app=app)(report.s(str(work)))


@contextmanager
def _subscriptions(app: Any) -> Iterator[None]:
    """Forget the results that nobody waits for any more, without asking the server.

    Celery subscribes to each result of a chord and unsubscribes when the object dies. After a
    Ctrl-C the server may be gone by then, and thousands of objects would try to reach it.
    """
    subscribed = app.backend.result_consumer.subscribed_to
    before = set(subscribed)
    try:
        yield
    finally:
        subscribed &= before


class Watch:
    """Waits on the chord's result and looks at the ledger in between, until there is an end."""

    def __init__(self, result: Any, work: Path, console: Console, meter: meters.Meter) -> None:
        self.reader = ledger.Reader(work / "ledger")
        self.problem = ""
        self._result = result
        self._meter = meter
        self._console = console
        self._polls = 0
        self._idle_polls = 0

    def ended(self) -> bool:
        """Wait a quarter of a second at most; True when the chord is done or has failed."""
        ready = self._wait()
        fresh = self.reader.read()
        if fresh:
            self._meter.take(fresh)
            self._idle_polls = 0
        self._polls += 1
        self._idle_polls += 1
        if self._idle_polls >= _STALLED_AFTER_POLLS and self.reader.entries:
            self.problem = (
                "no progress for a minute: what a killed worker was running is given to nobody yet"
            )
            return True
        if self._polls == _HINT_AFTER_POLLS and not self.reader.entries:
            _say(self._console, "nothing in the ledger yet: is a worker of this app running?")
        return ready

    def _wait(self) -> bool:
        """Celery's own wait: results arrive by push. A backend that is away is no answer."""
        backend = self._result.backend
        try:
            value = self._result.get(timeout=_POLL_S, propagate=False)
        except (TimeoutError, RuntimeError, *backend.connection_errors):
            return False
        if isinstance(value, Exception):
            self.problem = f"the chord failed: {value}"
        return True


def conclude(
    console: Console,
    out: Path,
    work: Path,
    names: Sequence[str],
    reader: ledger.Reader,
    problem: str,
) -> int:
    """Check the ledger once more, publish the report, print the summary."""
    reader.read()
    verdict = ledger.check(names, reader.entries)
    lists = {
        "not processed": verdict.missing,
        "processed more than once": verdict.doubled,
        "processed without being asked for": verdict.unexpected,
        "broken ledger lines": reader.broken,
    }
    if not problem:
        for name in ("report.json", "report.html"):
            shutil.copyfile(work / name, out / name)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        lists["not in the report"] = report["doubts"]["unreported"]
        lists["seen with different contents"] = report["doubts"]["disagreeing"]
        _summary(console, report, out)
    if problem or any(lists.values()):
        return _explain(console, problem, lists, work)
    _say(console, "every file was processed exactly once per kind, as the ledger says")
    shutil.rmtree(work / "copies", ignore_errors=True)
    return 0


def _summary(console: Console, report: dict[str, Any], out: Path) -> None:
    """What was found, in a few lines."""
    totals = report["totals"]
    definitions = f"{totals['definitions']:,} definitions ({totals['classes']:,} classes)"
    _say(console, f"{totals['files']:,} files, {totals['lines']:,} lines, {definitions}")
    if report["unparsed"]:
        _say(
            console, f"files without a syntax tree: {totals['unparsed']:,} (results, not failures)"
        )
    if report["most_complex"]:
        top = report["most_complex"][0]
        _say(console, f"most complex module: {top['file']} (complexity {top['complexity']:,})")
    sizes = f"{totals['bytes'] / 1e6:.1f} MB compressed to {totals['packed'] / 1e6:.1f} MB"
    speed = f"{totals['seconds']:.1f} s, {totals['files_per_second']:.0f} files/s"
    _say(console, f"{sizes} in {speed}")
    for share in report["instances"]:
        done = share["executions"]
        _say(console, f"  {share['instance']}: {done['cpu']:,} examined, {done['io']:,} copied")
    _say(console, f"report: {out / 'report.html'}")


def _explain(console: Console, problem: str, lists: dict[str, list[str]], work: Path) -> int:
    """A plain list of what is wrong, and where the evidence is."""
    for what, names in lists.items():
        if names:
            _say(console, f"{len(names):,} {what}:")
            for name in names[:_SHOWN]:
                _say(console, f"  {name}")
            if len(names) > _SHOWN:
                _say(console, f"  and {len(names) - _SHOWN:,} more")
    _say(console, f"plan and ledger: {work}")
    return _fail(console, problem or "the census is not exact")


def _fail(console: Console, reason: str) -> int:
    """One line, and the exit code."""
    text = f"census: {reason}"
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return 1


def _say(console: Console, text: str) -> None:
    """One plain line: names of files are not markup. A terminal wraps it; a log must not."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """`python -m examples.census.run`: the census on the workers of `examples.census.app`."""
    from examples.census.app import app

    return run(app, Console(), Path("census-report"))


if __name__ == "__main__":
    sys.exit(main())
