"""The periodic jobs of NXS at a glance: `python beat_schedule.py` prints the table.

The table itself is `nxs_tasks.control.jobs.JOBS`, and `Fleet(app)` merges it into the app's own
`beat_schedule`. It is not kept in this file, because a module of this name is what many Celery
projects have themselves: installed beside theirs, one would hide the other.
"""

from __future__ import annotations

from nxs_tasks.control.jobs import JOBS
from nxs_tasks.control.schedule import beat_schedule
from nxs_tasks.settings import load

SCHEDULE = beat_schedule(load().settings)

if __name__ == "__main__":
    for name, entry in SCHEDULE.items():
        job = JOBS[name.removeprefix("nxs-")]
        print(f"{name}: every {entry['schedule']:g} s ({job.period_setting}), {job.why}")
