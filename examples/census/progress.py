"""How far the census is: bars on a terminal, a line per tenth elsewhere. Fed by the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.census.ledger import KINDS, Entry

_LABELS = {"cpu": "examine", "io": "copy"}
_STEPS = 10


class Meter:
    """Counts distinct files per kind; a second execution of a file moves nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._done: dict[str, set[str]] = {kind: set() for kind in KINDS}

    def take(self, entries: Iterable[Entry]) -> None:
        """Count what the ledger gained."""
        for entry in entries:
            if entry.kind in self._done:
                self._done[entry.kind].add(entry.file)
        self.show()

    def done(self, kind: str) -> int:
        """Files finished, of one kind."""
        return len(self._done[kind])

    @property
    def all_done(self) -> int:
        """Files finished, over both kinds."""
        return sum(self.done(kind) for kind in KINDS)

    def submitted(self) -> None:
        """Every task is with the broker."""

    def show(self) -> None:
        """Draw; nothing here."""


class Bars(Meter):
    """One bar per kind, for a terminal."""

    def __init__(self, total: int, progress: Progress) -> None:
        super().__init__(total)
        self._progress = progress
        self._tasks = {kind: progress.add_task(_LABELS[kind], total=total) for kind in KINDS}
        self._submit = progress.add_task("submit", total=None)

    def submitted(self) -> None:
        """Nothing more to submit: its row goes."""
        self._progress.remove_task(self._submit)

    def show(self) -> None:
        """Move the bars."""
        for kind, task in self._tasks.items():
            self._progress.update(task, completed=self.done(kind))


class Lines(Meter):
    """A plain line at each tenth, for a log."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total)
        self._console = console
        self._step = 0

    def show(self) -> None:
        """Print when another tenth is full."""
        step = _STEPS * self.all_done // max(self.total * len(KINDS), 1)
        if step > self._step:
            self._step = step
            parts = (f"{_LABELS[kind]} {self.done(kind):,}/{self.total:,}" for kind in KINDS)
            self._console.print(", ".join(parts), highlight=False, markup=False)


@contextmanager
def meter(console: Console, total: int) -> Iterator[Meter]:
    """The meter that suits the console."""
    if not console.is_terminal:
        yield Lines(total, console)
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(total, progress)
