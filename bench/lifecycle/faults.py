"""What happens to a fleet: to its nodes, its server, its observer and its clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random

from bench.lifecycle.fleet import Fleet, Stall

#: A node is lost so often, s, the mean; and comes back after so long, s.
LOST_EVERY_S, AWAY_S = 4 * 3600.0, (120.0, 600.0)
#: A node is paused so often, s, the mean; and for so long, s.
PAUSED_EVERY_S, PAUSE_S = 4 * 3600.0, (5.0, 60.0)
#: What concerns all happens so often, s, at any moment of it.
EVERY_S = 1800.0
STALL_S, OUTAGE_S, STEP_S = 60.0, 120.0, 600.0
#: Share of the fleet that falls silent, and for how long, s.
MASS, MASS_S = 0.6, (60.0, 240.0)

#: Puts a fault into a fleet, from one time to another (s); returns the steps of the observer's
#: own clock as (when, by how much).
Fault = Callable[[Fleet, float, float], list[tuple[float, float]]]


def losses(fleet: Fleet, start: float, end: float) -> list[tuple[float, float]]:
    """Each node is killed or loses its power, and comes back later."""
    for node in fleet.nodes.values():
        at = start
        while (at := at + fleet.rng.expovariate(1.0 / LOST_EVERY_S)) < end:
            node.at(at, node.kill if fleet.rng.random() < 0.5 else node.lose_power)
            at += fleet.rng.uniform(*AWAY_S)
            node.at(at, node.start)
    return []


def pauses(fleet: Fleet, start: float, end: float) -> list[tuple[float, float]]:
    """Each node stands still now and then."""
    for node in fleet.nodes.values():
        at = start
        while (at := at + fleet.rng.expovariate(1.0 / PAUSED_EVERY_S)) < end:
            node.at(at, partial(node.freeze, seconds=fleet.rng.uniform(*PAUSE_S)))
    return []


def stalls(fleet: Fleet, start: float, end: float) -> list[tuple[float, float]]:
    """The observer does nothing for a minute: before it looks, or between its look and its acts."""
    for n, at in enumerate(_moments(fleet.rng, start, end)):
        fleet.stalls.append(Stall(at, at + STALL_S, acting=n % 2 == 1))
    return []


def restarts(fleet: Fleet, start: float, end: float) -> list[tuple[float, float]]:
    """The server is away for two minutes."""
    for at in _moments(fleet.rng, start, end):
        fleet.restart_server(at, OUTAGE_S)
    return []


def clock_steps(fleet: Fleet, start: float, end: float) -> list[tuple[float, float]]:
    """Somebody sets the observer's clock by ten minutes, on and back."""
    sign = 1.0
    found = []
    for at in _moments(fleet.rng, start, end):
        found.append((at, sign * STEP_S))
        sign = -sign
    return found


def mass_silence(
    fleet: Fleet, start: float, end: float, *, closed: bool
) -> list[tuple[float, float]]:
    """Most of the fleet cannot be heard for some minutes, and lives."""
    for at in _moments(fleet.rng, start, end):
        seconds = fleet.rng.uniform(*MASS_S)
        for node in fleet.rng.sample(list(fleet.nodes.values()), round(MASS * len(fleet.nodes))):
            node.at(at, partial(node.cut, closed=closed))
            node.at(at + seconds, node.mend)
    return []


FAULTS: Mapping[str, Fault] = {
    "losses": losses,
    "pauses 5-60 s": pauses,
    "observer stalled 60 s": stalls,
    "server away 2 min": restarts,
    "clocks set by 10 min": clock_steps,
    "60 % silent": partial(mass_silence, closed=False),
    "60 % silent, disconnected": partial(mass_silence, closed=True),
}


def _moments(rng: Random, start: float, end: float) -> Iterator[float]:
    at = start
    # The last one has to be over by the end.
    while at + 2 * EVERY_S <= end:
        yield at + rng.uniform(0.0, EVERY_S - max(MASS_S))
        at += EVERY_S
