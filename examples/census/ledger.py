"""The ledger: what ran, written by the tasks themselves, without asking Celery.

One file per process, one line of JSON per execution, appended with a single `write`. A reader
follows the files from where it stopped, so that looking often costs little.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

#: Each file is processed once per kind.
KINDS = ("cpu", "io")
#: The callback's own line: the report is on the disk.
REPORT = "report"


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished execution. Times are seconds since 1970 on the instance's clock."""

    task_id: str
    file: str
    kind: str
    instance: str
    start: float
    end: float
    pid: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the ledger differs from "every file once per kind"; empty means that it does not."""

    missing: list[str]
    doubled: list[str]
    unexpected: list[str]

    @property
    def exact(self) -> bool:
        """Whether every file was processed exactly once per kind, and nothing else was."""
        return not (self.missing or self.doubled or self.unexpected)


def append(folder: Path, entry: Entry) -> None:
    """Add one line to the file of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = re.sub(r"[^\w@.-]", "_", entry.instance)
    line = json.dumps(asdict(entry), separators=(",", ":")) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    handle = os.open(folder / f"{owner}.{entry.pid}.jsonl", flags, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


class Reader:
    """Follows a ledger folder; `entries` grows with each `read()`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self.entries: list[Entry] = []
        self.broken: list[str] = []

    def read(self) -> list[Entry]:
        """The entries written since the last call. A line without its end is left for later."""
        fresh: list[Entry] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as source:
                source.seek(self._offsets.get(path, 0))
                whole, end, _ = source.read().rpartition(b"\n")
            self._offsets[path] = self._offsets.get(path, 0) + len(whole) + len(end)
            fresh += [entry for line in whole.splitlines() if (entry := self._parse(path, line))]
        self.entries += fresh
        return fresh

    def _parse(self, path: Path, line: bytes) -> Entry | None:
        """One line; what is no entry is kept in `broken`, by the name of its file."""
        try:
            raw = json.loads(line)
            return Entry(**{field.name: raw[field.name] for field in fields(Entry)})
        except (ValueError, KeyError, TypeError):
            self.broken.append(f"{path.name}: {line[:80].decode(errors='replace')}")
            return None


def check(expected: Sequence[str], entries: Iterable[Entry]) -> Verdict:
    """Compare the ledger with the list of files: each once per kind, no other."""
    seen = Counter((entry.file, entry.kind) for entry in entries if entry.kind != REPORT)
    wanted = {(file, kind) for file in expected for kind in KINDS}
    return Verdict(
        missing=[f"{file} ({kind})" for file, kind in sorted(wanted - seen.keys())],
        doubled=[
            f"{file} ({kind}): {seen[file, kind]} times"
            for file, kind in sorted(wanted & seen.keys())
            if seen[file, kind] > 1
        ],
        unexpected=[f"{file} ({kind})" for file, kind in sorted(seen.keys() - wanted)],
    )
