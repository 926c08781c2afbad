"""What arrives: jobs, made from distributions or read from a trace."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import sqrt
from pathlib import Path
from random import Random

#: Draws one service time, s, on a machine of speed 1.
Service = Callable[[Random], float]


@dataclass(slots=True, eq=False)
class Job:
    """One task: what it needs, and what became of it (times in s of the loop)."""

    number: int
    arrives: float
    service: float
    task: str = "task"
    key: str = ""  # what it wants to find in a cache
    bad: bool = field(default=False, kw_only=True)  # it fails wherever it runs
    #: It joins a line only if the machine then has no more than so many, running and waiting.
    limit: int | None = field(default=None, init=False)
    moved_at: float | None = field(default=None, init=False)  # by a migration
    started: float = field(default=-1.0, init=False)
    ended: float = field(default=-1.0, init=False)
    machine: str = field(default="", init=False)
    failed: bool = field(default=False, init=False)
    hit: bool = field(default=False, init=False)  # its key was in the machine's cache

    @property
    def wait(self) -> float:
        """From its arrival to its start."""
        return self.started - self.arrives

    @property
    def sojourn(self) -> float:
        """From its arrival to its end."""
        return self.ended - self.arrives


class TraceError(ValueError):
    """A trace cannot be read; the message names the file and the line."""


def exponential(mean: float) -> Service:
    """Memoryless: SCV (variance by mean squared) 1."""
    return lambda rng: rng.expovariate(1.0 / mean)


def uniform(least: float, most: float) -> Service:
    """Equally likely between two bounds."""
    return lambda rng: rng.uniform(least, most)


def constant(seconds: float) -> Service:
    """All the same: SCV 0."""
    return lambda rng: seconds


def hyperexponential(mean: float, scv: float) -> Service:
    """Few long among many short: two exponentials with balanced means, of a given SCV above 1.

    Whitt, Approximating a point process by a renewal process (1982), section 3.
    """
    p = (1.0 + sqrt((scv - 1.0) / (scv + 1.0))) / 2.0
    fast, slow = 2.0 * p / mean, 2.0 * (1.0 - p) / mean
    return lambda rng: rng.expovariate(fast if rng.random() < p else slow)


def gamma(mean: float, scv: float) -> Service:
    """One hump, of a given SCV: below 1 it is more even than an exponential."""
    return lambda rng: rng.gammavariate(1.0 / scv, mean * scv)


def of_scv(mean: float, scv: float) -> Service:
    """The usual distribution of that mean and SCV."""
    if scv == 1.0:
        return exponential(mean)
    return hyperexponential(mean, scv) if scv > 1.0 else gamma(mean, scv)


def poisson(rng: Random, rate: float, service: Service, task: str = "task") -> Iterator[Job]:
    """Jobs without end whose arrivals know nothing of each other; `rate` is per second."""
    return renewal(rng, exponential(1.0 / rate), service, task)


def renewal(rng: Random, gap: Service, service: Service, task: str = "task") -> Iterator[Job]:
    """Jobs without end; `gap` draws the s between two. With an SCV above 1 they come in bursts."""
    number, now = 0, 0.0
    while True:
        now += gap(rng)
        yield Job(number, now, service(rng), task)
        number += 1


def at_once(count: int, service: Service, rng: Random, task: str = "task") -> list[Job]:
    """A backlog: all are there at the start."""
    return [Job(number, 0.0, service(rng), task) for number in range(count)]


def take(jobs: Iterable[Job], count: int) -> list[Job]:
    """The first so many."""
    return list(islice(jobs, count))


def read_trace(path: Path) -> list[Job]:
    """Jobs from a CSV file with the columns `arrival` (s), `service` (s), `task` and `key`.

    The last two may be missing. Jobs are sorted by arrival and the first arrives at 0. Raises
    `TraceError`.
    """
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        missing = {"arrival", "service"} - set(rows.fieldnames or ())
        if missing:
            raise TraceError(f"{path}: no column {sorted(missing)[0]!r} in its first line")
        found = [_row(path, rows.line_num, row) for row in rows]
    found.sort(key=lambda row: row[0])
    start = found[0][0] if found else 0.0
    return [Job(n, at - start, service, *names) for n, (at, service, *names) in enumerate(found)]


def _row(path: Path, line: int, row: dict[str, str]) -> tuple[float, float, str, str]:
    try:
        arrival, service = float(row["arrival"]), float(row["service"])
    except (TypeError, ValueError):
        raise TraceError(f"{path}, line {line}: arrival and service must be numbers") from None
    if not (service >= 0.0 and abs(arrival) < float("inf")):
        raise TraceError(f"{path}, line {line}: service must not be below 0, nor arrival endless")
    return arrival, service, row.get("task") or "task", row.get("key") or ""
