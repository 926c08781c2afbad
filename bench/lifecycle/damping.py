"""How others would damp an instance that comes and goes. They read what NXS recorded, no more.

Each says from when to when an instance would have got no work for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import exp, log

from bench.lifecycle.records import Move
from nxs_tasks.model.state import State

#: By instance, from when to when, s.
Spans = dict[str, list[tuple[float, float]]]
Rule = Callable[[Iterable[Move]], Spans]

#: The rule to the letter: more than so many transitions within so long, s; the back-offs, s; a
#: level counts as long as the last back-off ended less than so long ago, s.
TRANSITIONS, WINDOW_S, BACK_OFFS_S, REMEMBERED_S = 3, 300.0, (60.0, 300.0, 900.0), 900.0
#: RFC 2439 as Cisco has it: penalty for each loss, half-life, s, suppressed above, used again
#: below, the longest, s.
PENALTY, HALF_LIFE_S, SUPPRESSED, REUSED, LONGEST_S = 1000.0, 900.0, 2000.0, 750.0, 3600.0
#: CrashLoopBackOff: the first wait, doubled each time to the longest; forgotten after so long, s.
FIRST_S, MOST_S, FORGOTTEN_S = 10.0, 300.0, 600.0


def literal(moves: Iterable[Move]) -> Spans:
    """More than three transitions of any kind in five minutes: withheld for 1, then 5, then 15 min.

    What happens while it is withheld does not count.
    """
    spans: Spans = defaultdict(list)
    lately: dict[str, list[float]] = defaultdict(list)
    levels: dict[str, int] = defaultdict(int)
    for move in moves:
        name, known = move.name, spans[move.name]
        until = known[-1][1] if known else 0.0
        if move.at < until:
            continue
        lately[name] = [at for at in lately[name] if move.at - at <= WINDOW_S] + [move.at]
        if len(lately[name]) > TRANSITIONS:
            if move.at - until > REMEMBERED_S:
                levels[name] = 0
            off = BACK_OFFS_S[min(levels[name], len(BACK_OFFS_S) - 1)]
            known.append((move.at, move.at + off))
            levels[name] += 1
            lately[name] = []
    return spans


def rfc2439(moves: Iterable[Move]) -> Spans:
    """A penalty for each loss, whoever planned it; it halves in a quarter of an hour."""
    spans: Spans = defaultdict(list)
    penalties: dict[str, tuple[float, float]] = {}
    for move in moves:
        if move.target is not State.GONE:
            continue
        before, at = penalties.get(move.name, (0.0, move.at))
        penalty = before * exp(-log(2.0) * (move.at - at) / HALF_LIFE_S) + PENALTY
        penalties[move.name] = penalty, move.at
        known = spans[move.name]
        if penalty < SUPPRESSED and not (known and known[-1][1] > move.at):
            continue
        until = move.at + min(LONGEST_S, HALF_LIFE_S * log(penalty / REUSED) / log(2.0))
        if known and known[-1][1] >= move.at:
            known[-1] = known[-1][0], until
        else:
            known.append((move.at, until))
    return spans


RULES: Mapping[str, Rule] = {"the letter": literal, "RFC 2439": rfc2439}


class CrashLoop:
    """How long the kubelet waits before it starts a container again."""

    def __init__(self) -> None:
        self._wait_s = 0.0

    def wait_s(self, ran_s: float) -> float:
        """After one that ran for so long, s, and ended anyhow."""
        again = self._wait_s and ran_s < FORGOTTEN_S
        self._wait_s = min(MOST_S, 2 * self._wait_s) if again else FIRST_S
        return self._wait_s


def total_s(spans: Spans, end: float) -> float:
    """Of all instances together, until the end, s."""
    return sum(max(0.0, min(until, end) - at) for known in spans.values() for at, until in known)


def most(spans: Spans, moments: Iterable[float]) -> int:
    """How many are withheld at most at one of these moments."""
    return max(
        sum(any(at <= now < until for at, until in known) for known in spans.values())
        for now in moments
    )
