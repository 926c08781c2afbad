"""`python -m chaos`: NXS and plain Celery go through the same seeded plan, and it is counted.

`python -m chaos NAME` measures something else (`measure.py`).

Exit codes: 0 NXS lost nothing, every duplicate is explained, nothing is left over, and no process
ended by itself · 1 it is not so, or it could not be run · 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from chaos import measure
from chaos.ordeal import Options, Ordeal, Result
from chaos.plan import MODES
from chaos.report import show
from chaos.side import Side, celery_side, nxs_side
from chaos.stage import Say, StageError
from nxs_tasks.clock import SYSTEM, iso

FOLDER = Path(".state/chaos")
SIDES = ("nxs", "celery")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in measure.MEASURES:
        with progress() as say:
            return measure.main(given[0], given[1:], _folder(given[0]), say)
    options = _parser().parse_args(given)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    chosen = Options(
        seed=seed,
        kills=options.kills,
        rate=options.rate,
        pace=options.pace,
        modes=options.modes,
        workers=options.workers,
        slots=options.slots,
    )
    sides = [_side(name, options) for name in options.sides]
    folder = _folder(str(seed))
    print(f"seed {seed}; once more the same: {_again(chosen)}", file=sys.stderr)
    try:
        with _stopped_by_signals() as stop, progress() as say:
            results = _run_all(sides, chosen, folder, stop, say)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    if stop.is_set():
        print(f"interrupted; files: {folder}", file=sys.stderr)
        return 130
    return _tell(results, folder, options)


def _run_all(
    sides: Sequence[Side], options: Options, folder: Path, stop: threading.Event, say: Say
) -> list[Result]:
    results = []
    for side in sides:
        ordeal = Ordeal(side, options, folder / side.name, lambda t, s=side: say(f"{s.title}: {t}"))  # type: ignore[misc]
        results.append(ordeal.run(stop))
        if stop.is_set():
            break
    return results


def _tell(results: Sequence[Result], folder: Path, options: argparse.Namespace) -> int:
    if options.json:
        for result in results:
            print(json.dumps(result.as_dict()))
    else:
        show(results, Console())
    failed = [r for r in results if r.side.name == "nxs" and not r.clean]
    for result in results:
        _write_evidence(result, folder / result.side.name)
    for result in failed:
        print(f"{result.side.title}: not as promised; evidence and logs: {folder}", file=sys.stderr)
    if not failed and not options.keep:
        shutil.rmtree(folder)
    return int(bool(failed))


def _write_evidence(result: Result, folder: Path) -> None:
    lines = [
        *(f"{what}, exit code {code}" for what, code in result.surprises),
        *(f"left: {place}: {count}" for place, count in result.verdict.left.items()),
        *(f"key: {name}: {count}" for name, count in sorted(result.keys.items())),
    ]
    for task, told in result.told.items():
        lines += ["", task, *(f"  {line}" for line in told)]
    (folder / "evidence.txt").write_text("\n".join(lines) + "\n")
    (folder / "result.json").write_text(json.dumps(result.as_dict(), indent=1) + "\n")


def _folder(name: str) -> Path:
    """A new one for each run."""
    return FOLDER / f"{iso(SYSTEM.now()).replace(':', '')}-{name}"


def _again(options: Options) -> str:
    return (
        f"python -m chaos --seed {options.seed} --kills {options.kills} --rate {options.rate:g} "
        f"--pace {options.pace:g} --workers {options.workers} --slots {options.slots} "
        f"--modes {','.join(options.modes)}"
    )


def _side(name: str, options: argparse.Namespace) -> Side:
    return nxs_side() if name == "nxs" else celery_side(options.visibility, options.grace)


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in text.split(",") if part.strip())
        unknown = [name for name in found if name not in known]
        if unknown or not found:
            raise argparse.ArgumentTypeError(
                f"{', '.join(map(repr, unknown)) or 'nothing'}: choose from {','.join(known)}"
            )
        return found

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="NXS and plain Celery go through the same seeded plan, and it is counted.",
        epilog=f"or: python -m chaos {{{','.join(measure.MEASURES)}}} --help",
    )
    parser.add_argument("--seed", type=int, help="of the plan and the tasks; else a new one")
    parser.add_argument("--kills", type=int, default=500, help="SIGKILLs of workers (%(default)s)")
    parser.add_argument("--rate", type=float, default=600, help="tasks a second (%(default)s)")
    parser.add_argument("--pace", type=float, default=2.25, help="acts a second (%(default)s)")
    parser.add_argument("--modes", type=_names(MODES), default=MODES, help=",".join(MODES))
    parser.add_argument("--sides", type=_names(SIDES), default=SIDES, help=",".join(SIDES))
    parser.add_argument("--workers", type=int, default=8, help="workers (%(default)s)")
    parser.add_argument("--slots", type=int, default=4, help="of each, but solo (%(default)s)")
    parser.add_argument(
        "--visibility", type=float, default=3600, help="plain Celery's time-out, s (%(default)s)"
    )
    parser.add_argument(
        "--grace", type=float, default=30, help="plain Celery's time to settle, s (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON for each side")
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    return parser


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM asks to stop; the second interrupts."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress() -> Iterator[Say]:
    """Shows on standard error what is going on."""
    with Console(stderr=True).status("starting") as status:
        yield status.update
