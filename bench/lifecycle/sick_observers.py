"""S7: the observer is sick, or what lies between. Nobody may be given up for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.catalog import Say
from bench.figure import Figure
from bench.lifecycle.faults import FAULTS
from bench.lifecycle.figures import NONE, figure
from bench.lifecycle.fleet import OURS
from bench.lifecycle.trial import PEERS, SEEDS, Trial, measure_all

#: Of these the nodes themselves are guilty.
NODES = ("losses", "pauses 5-60 s")
SICK = tuple(fault for fault in FAULTS if fault not in NODES)
PAUSES = "pauses 5-60 s"


def run(say: Say) -> Iterator[Figure]:
    """All figures."""
    faults = (*SICK, PAUSES)
    seeded = [Trial(fault=fault, seed=seed) for fault in faults for seed in SEEDS]
    seen = measure_all(seeded, say, "S7 sick")
    for fault in faults:
        told = [seen[replace(Trial(fault=fault), seed=seed)] for seed in SEEDS]
        deaths = [by_side[OURS].deaths for by_side in told]
        # A pause of a minute is an eviction, and has to be.
        goal = None if fault == PAUSES else NONE
        yield figure(f"{fault}: deaths", deaths, "a day", goal, of=max)
        suspected = [by_side[OURS].suspicions for by_side in told]
        yield figure(f"{fault}: suspicions", suspected, "a day", of=max)
        for peer in PEERS:
            theirs = (peer, [by_side[peer].deaths for by_side in told])
            yield figure(f"{fault}: deaths", deaths, "a day", of=max, peer=theirs)
