"""When each job of the control plane runs, in the form of Celery's beat.

Every job goes to the control worker, and expires with its period: a job that waited longer is
replaced by the next one.
"""

from __future__ import annotations

from typing import Any

from nxs_tasks.control.jobs import JOBS
from nxs_tasks.runtime import CONTROL_TASKS
from nxs_tasks.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """The table of jobs as `beat_schedule` entries."""
    return {
        f"nxs-{name}": {
            "task": CONTROL_TASKS + name,
            "schedule": job.period(settings),
            "options": {"expires": job.period(settings)},
        }
        for name, job in JOBS.items()
    }
