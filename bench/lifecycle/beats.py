"""The application whose beats are struck: with a fleet, or with RedBeat."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.schedules import crontab

from bench.lifecycle.ticks import MINUTE, SECOND
from nxs_tasks import Fleet

URL = os.environ["BENCH_BROKER"]
#: A beat that has not renewed for so long leads no more, s: the default of NXS.
LEASE_S = 10.0

#: What the bench leaves there is a signal: for whoever is about to send.
STRIKE = Path(os.environ["BENCH_FOLDER"]) / "strike"


def strike(**_: Any) -> None:
    """The run is decided, and its message is not yet written."""
    with suppress(FileNotFoundError):
        number = int(STRIKE.read_text())
        STRIKE.unlink()
        os.kill(os.getpid(), number)


signals.before_task_publish.connect(strike, sender=SECOND, weak=False)
app = Celery("leaders", broker=URL, set_as_current=False)
app.conf.beat_schedule = {
    "second": {"task": SECOND, "schedule": 1.0},
    "minute": {"task": MINUTE, "schedule": crontab()},
}
if os.environ["BENCH_SIDE"] == "NXS":
    fleet = Fleet(app, beat_lease=LEASE_S)
else:
    app.conf.update(
        beat_scheduler="redbeat.RedBeatScheduler",
        redbeat_redis_url=URL,
        redbeat_lock_timeout=LEASE_S,
        # As often as the beat of NXS renews.
        beat_max_loop_interval=LEASE_S / 3,
    )
