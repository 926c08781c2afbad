"""What the workers of S2 load, each in a process of its own.

BENCH_BROKER is the server, BENCH_KIND the name of the side, BENCH_FLEET says whether
with the line.
"""

from __future__ import annotations

import os

from bench.placement.naps import make, nap_of
from nxs_tasks import Fleet

app = make(os.environ["BENCH_BROKER"], os.environ["BENCH_KIND"])
nap = nap_of(app)
if os.environ.get("BENCH_FLEET"):
    fleet = Fleet(app)
