"""The three tasks of the census. Shared tasks: they work on any Celery application.

`kind` is an option of ours: Celery keeps what it does not know as an attribute of the task.
Messages hold a path relative to the standard library and the run's folder, and nothing else.
"""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from celery import shared_task

from examples.census import files, ledger, measure, report


@shared_task(name="census.examine", bind=True, kind="cpu")
def examine(self: Any, file: str, work: str) -> dict[str, Any]:
    """Bound by the CPU: parse one file, count what it defines, compress it, hash it."""
    start = time.time()
    data, error = _read(file)
    packed = measure.pack(data)
    row = {"file": file, "kind": self.kind, **_content(data)}
    row |= asdict(measure.shape(data)) | {"packed": packed.size, "codec": packed.codec}
    _record(self, file, work, start)
    return row | {"error": error} if error else row


@shared_task(name="census.copy", bind=True, kind="io")
def copy(self: Any, file: str, work: str) -> dict[str, Any]:
    """Bound by the disk: write a lightly compressed copy, wait for the disk, read it back."""
    start = time.time()
    data, error = _read(file)
    target = files.locate(Path(work, "copies"), file + ".z")
    files.write(target, zlib.compress(data, 1), durable=True)
    stored = target.read_bytes()
    row = {"file": file, "kind": self.kind, **_content(zlib.decompress(stored))}
    _record(self, file, work, start)
    return row | {"packed": len(stored), "error": error}


@shared_task(name="census.report", bind=True, kind="io")
def write_report(self: Any, rows: list[dict[str, Any]], work: str) -> dict[str, Any]:
    """The chord's callback: everything that was found, as JSON and as a page."""
    start = time.time()
    outcome = report.write(rows, Path(work), start)
    _record(self, "report.json", work, start, kind=ledger.REPORT)
    return outcome


def _read(file: str) -> tuple[bytes, str | None]:
    """The bytes of one file; a file that cannot be read is empty, with the reason."""
    try:
        return files.locate(files.stdlib(), file).read_bytes(), None
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or type(error).__name__}"


def _content(data: bytes) -> dict[str, Any]:
    """What both kinds say about a file, so that the report can compare them."""
    return {"bytes": len(data), "lines": measure.lines(data), "sha256": measure.digest(data)}


def _record(task: Any, file: str, work: str, start: float, kind: str | None = None) -> None:
    """One line in the ledger for this execution."""
    request = task.request
    entry = ledger.Entry(
        task_id=request.id or "",
        file=file,
        kind=kind or task.kind,
        instance=request.hostname or "local",
        start=round(start, 4),
        end=round(time.time(), 4),
        pid=os.getpid(),
    )
    ledger.append(Path(work, "ledger"), entry)
