"""`python -m chaos NAME`: figures with goals, each on a fleet of its own.

Exit codes: 0 every goal is met · 1 one is not, or nothing could be measured · 130 interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console

from bench.figure import Figure
from bench.report import show
from chaos.stage import Say, StageError

#: Of a table that goes to a file.
WIDTH = 120


@dataclass(frozen=True, slots=True)
class Measure:
    """One of them: what it asks, and its options (name, default, what it is)."""

    about: str
    module: str
    options: Mapping[str, tuple[int, str]]

    def run(self, options: argparse.Namespace, folder: Path, say: Say) -> Iterator[Figure]:
        """Measure."""
        found: Callable[..., Iterator[Figure]] = import_module(self.module).run
        return found(options, folder, say)


MEASURES: Mapping[str, Measure] = {
    "recovery": Measure(
        "until what a killed or frozen instance held runs elsewhere, with the default settings",
        "chaos.recovery",
        {"runs": (20, "killed instances, and as many frozen ones"), "seed": (1, "of the moments")},
    ),
    "long": Measure(
        "tasks that take ten times as long as the lease start once; who wakes up commits nothing",
        "chaos.lease",
        {
            "tasks": (1000, "long tasks"),
            "workers": (4, "workers that run them"),
            "slots": (250, "of each"),
            "rounds": (3, "woken zombies of each kind"),
        },
    ),
    "poison": Measure(
        "a task that kills its worker, beside the same run without it, with the default settings",
        "chaos.poison",
        {
            "tasks": (9000, "other tasks, 0.2 s each"),
            "workers": (5, "workers"),
            "slots": (4, "of each"),
        },
    ),
}


def main(name: str, argv: Sequence[str], folder: Path, say: Say) -> int:
    """Run one; returns the exit code."""
    measure = MEASURES[name]
    options = _parser(name, measure).parse_args(argv)
    figures = []
    try:
        for figure in measure.run(options, folder, say):
            figures.append(figure)
            if options.json:
                print(figure.as_json(), flush=True)
    except StageError as error:
        print(f"chaos {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if not options.json:
        show(figures, Console(width=None if sys.stdout.isatty() else WIDTH))
    if any(figure.passed is False for figure in figures):
        print(f"not as promised; ledger and logs: {folder}", file=sys.stderr)
        return 1
    if not options.keep:
        shutil.rmtree(folder)
    return 0


def _parser(name: str, measure: Measure) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m chaos {name}", description=measure.about)
    for option, (default, about) in measure.options.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"{about} (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    return parser
