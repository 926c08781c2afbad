"""The periodic jobs of NXS, one table: what runs, how often, and why that often.

`Fleet(app)` merges it into the app's own `beat_schedule`. Every job goes to the control worker,
and expires with its period: a job that waited longer is replaced by the next one.
"""

from __future__ import annotations

from typing import Any

#: job, the setting that holds its period, why
SCHEDULE = (
    ("lifecycle", "lifecycle_period", "a dead instance is GONE within gone_after + this"),
    ("record", "record_period", "what happened shows up in the history within this"),
    ("prune", "prune_period", "history_days is kept to the hour"),
)


def beat_schedule(settings: Any) -> dict[str, dict[str, Any]]:
    """The table in Celery's form; `settings` is `nxs_tasks.settings.Settings`."""
    return {
        f"nxs-{job}": {
            "task": f"nxs.control.{job}",
            "schedule": float(getattr(settings, period)),
            "options": {"expires": float(getattr(settings, period))},
        }
        for job, period, _ in SCHEDULE
    }
