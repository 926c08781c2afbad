"""The app whose workers are made deaf: a task that sleeps, and the faults of `mischief`.

Run in a process of its own: BENCH_BROKER is its server.
"""

from __future__ import annotations

import os

from bench.lifecycle import mischief
from bench.placement.naps import make, nap_of
from nxs_tasks import Fleet

__all__ = ["app", "fleet", "mischief", "nap"]

app = make(os.environ["BENCH_BROKER"], "NXS")
nap = nap_of(app)
fleet = Fleet(app)
