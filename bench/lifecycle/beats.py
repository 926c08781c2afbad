"""The application whose beats are struck: with a fleet, or with RedBeat."""

from __future__ import annotations

import os

from celery import Celery
from celery.schedules import crontab

from bench.lifecycle.ticks import MINUTE, SECOND
from nxs_tasks import Fleet

URL = os.environ["BENCH_BROKER"]
#: A beat that has not renewed for so long leads no more, s: the default of NXS.
LEASE_S = 10.0

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
