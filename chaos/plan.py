"""The seeded plan: what is done when, and to whom. The same seed does the same to each side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Mode → how often for each `hard` one. `hard` is SIGKILL of a worker.
SHARES = {
    "hard": 1.0,
    "term": 0.10,  # warm shutdown
    "stop": 0.10,  # SIGSTOP, and SIGCONT later
    "cut": 0.15,  # the server closes its connections
    "child": 0.10,  # SIGKILL of a pool process
    "submitter": 0.02,  # SIGKILL of who submits
    "control": 0.04,  # SIGKILL of a control worker or a beat
    "restart": 0.02,  # the server itself, killed or shut down
}
MODES = tuple(SHARES)
#: Shares of variants.
ALONE, SHUT_DOWN, RENAMED, ALL_CUT = 0.25, 0.3, 0.3, 0.5
#: A killed worker is down for so long, s.
DOWN_S = (0.0, 0.5)
#: The server is away for so long, s.
AWAY_S = (0.0, 2.0)


@dataclass(frozen=True, slots=True)
class Act:
    """One act. Who is not there to be struck is replaced by the next who is."""

    at: float  # s after the start
    mode: str
    victim: int  # place in the crew, taken modulo its size
    last_s: float  # how long it lasts: frozen, down or away
    renamed: bool = False  # comes back under another name
    alone: bool = False  # its main process only, not the group
    orderly: bool = False  # the server is shut down, not killed
    share: float = 1.0  # of its connections that are cut


def plan(
    seed: int, kills: int, modes: Sequence[str], pace: float, freeze_s: tuple[float, float]
) -> list[Act]:
    """`kills` SIGKILLs of workers and the others in proportion, `pace` acts a second.

    Moments are uniform, so that any instruction may be hit. Every mode that is wanted occurs.
    """
    rng = random.Random(f"plan {seed}")
    wanted = [
        mode for mode in MODES if mode in modes for _ in range(max(1, round(kills * SHARES[mode])))
    ]
    length = len(wanted) / pace
    return sorted((_act(rng, mode, length, freeze_s) for mode in wanted), key=lambda act: act.at)


def _act(rng: random.Random, mode: str, length: float, freeze_s: tuple[float, float]) -> Act:
    lasts = {"stop": freeze_s, "restart": AWAY_S}.get(mode, DOWN_S)
    return Act(
        at=rng.uniform(0.0, length),
        mode=mode,
        victim=rng.randrange(1 << 16),
        last_s=rng.uniform(*lasts),
        renamed=rng.random() < RENAMED,
        alone=mode == "hard" and rng.random() < ALONE,
        orderly=mode == "restart" and rng.random() < SHUT_DOWN,
        share=1.0 if rng.random() < ALL_CUT else rng.uniform(0.1, 0.6),
    )
