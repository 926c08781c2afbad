"""What is submitted: an endless, seeded stream of mostly tiny tasks."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Shares of the kinds; the rest is tiny.
LONG, DELAYED, RETRIED, URGENT = 0.01, 0.03, 0.02, 0.05
#: Durations, s.
TINY_S = 0.02
LONG_S = (0.5, 2.0)
#: How long a delayed one waits, s.
DELAY_S = (0.2, 2.0)
PRIORITIES = (3, 6, 9)


@dataclass(frozen=True, slots=True)
class Job:
    """One task to submit."""

    id: str
    name: str
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)


def jobs(seed: str) -> Iterator[Job]:
    """The stream of a seed."""
    rng = random.Random(f"jobs {seed}")
    while True:
        id_ = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        # Most are very short, as the tasks of a busy fleet are.
        seconds = TINY_S * rng.random() ** 2
        kind = rng.random()
        if kind < LONG:
            yield Job(id_, "chaos.work", rng.uniform(*LONG_S))
        elif kind < LONG + DELAYED:
            yield Job(id_, "chaos.work", seconds, {"countdown": rng.uniform(*DELAY_S)})
        elif kind < LONG + DELAYED + RETRIED:
            yield Job(id_, "chaos.again", seconds)
        elif kind < LONG + DELAYED + RETRIED + URGENT:
            yield Job(id_, "chaos.work", seconds, {"priority": rng.choice(PRIORITIES)})
        else:
            yield Job(id_, "chaos.work", seconds)
