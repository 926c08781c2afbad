"""`python -m bench NAME [--json] [--strict]`: runs one bench and prints its figures.

Exit codes: 0 measured, and with `--strict` every goal met · 1 a goal missed (with `--strict`), or
nothing could be measured · 2 no such bench · 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console

from bench.catalog import BENCHES, Bench, BenchError, Say
from bench.figure import Figure
from bench.report import show

#: Variables that would change what is measured, or send it to a broker that is not the bench's.
FOREIGN = ("NXS_", "CELERY_")


def main(argv: Sequence[str] | None = None, benches: Mapping[str, Bench] = BENCHES) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    bench = benches.get(options.name or "")
    if bench is None:
        print(_unknown(options.name, benches), file=sys.stderr)
        return 2
    figures = []
    try:
        with _own_environment(), _progress() as say:
            for figure in bench.run(say):
                figures.append(figure)
                if options.json:
                    print(figure.as_json(), flush=True)
    except BenchError as error:
        print(f"bench {options.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if not options.json:
        show(figures, Console())
    return int(options.strict and _missed(figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures NXS against a peer in the same run."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="which bench; none = list them")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    return parser


def _unknown(name: str | None, benches: Mapping[str, Bench]) -> str:
    lines = [f"  {known:<20} {bench.about}" for known, bench in sorted(benches.items())]
    if name is None:
        return "\n".join(["Say which bench: python -m bench NAME", *lines])
    near = difflib.get_close_matches(name, benches, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "; there are:"
    return "\n".join([f"unknown bench {name!r}{hint}", *lines])


def _missed(figures: Sequence[Figure]) -> bool:
    return any(figure.passed is False for figure in figures)


@contextmanager
def _own_environment() -> Iterator[None]:
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(FOREIGN)}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def _progress() -> Iterator[Say]:
    with Console(stderr=True).status("starting") as status:
        yield status.update
