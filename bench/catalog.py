"""All benches by name. A bench is imported only when it runs, so the list is there at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from bench.figure import Figure

#: Told what is being measured now.
Say = Callable[[str], None]
Run = Callable[[Say], Iterator[Figure]]


class BenchError(Exception):
    """A bench could not measure what it is there to measure: it has no figure to give."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One bench: what it asks, and what answers it."""

    about: str
    run: Run


def _module(name: str) -> Run:
    def run(say: Say) -> Iterator[Figure]:
        found: Run = import_module(f"bench.{name}").run
        return found(say)

    return run


BENCHES: Mapping[str, Bench] = {
    "results": Bench("storing, submitting for and fetching a result", _module("results")),
    "worker": Bench("no-op tasks a second of a worker, beside stock Celery", _module("worker")),
    "delayed": Bench("100,000 tasks for later: memory, and how late they run", _module("delayed")),
    "spool": Bench("submissions while the broker is frozen for a minute", _module("spool")),
    "submit_many": Bench("submissions by the batch and one by one", _module("submit_many")),
    "rebalance": Bench(
        "a tick of the rebalancer: 1,000 instances, 1,000,000 waiting tasks", _module("rebalance")
    ),
    "placement": Bench("waiting and makespan of placed work, beside others", _module("placement")),
    "lifecycle": Bench("who is given up and who is withheld, beside others", _module("lifecycle")),
    "lifecycle.simulated": Bench(
        "the same, what is simulated alone", _module("lifecycle.simulated")
    ),
    "submit": Bench("what placing adds to delay(), and what one decision costs", _module("submit")),
}
