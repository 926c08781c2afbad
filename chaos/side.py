"""The two that go through the same: NXS, and plain Celery beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Folder of NXS's state directory.
STATE = "state"
#: Times of the fleet, shortened so that 500 kills and what follows fit into minutes. A dead worker
#: is GONE within 4 s (6 s if it hangs), and a worker that is merely starved of processor is not.
QUICK = {
    "NXS_HEARTBEAT_PERIOD": "1",
    "NXS_JOIN_PERIOD": "0.2",
    "NXS_SILENT_AFTER": "3",
    "NXS_GONE_AFTER": "3",
    "NXS_ZOMBIE_AFTER": "4",
    "NXS_EVICT_AFTER": "7",
    "NXS_LIFECYCLE_PERIOD": "1",
    "NXS_BEAT_LEASE": "3",
    "NXS_GONE_KEPT": "20",
}
#: Frozen for so long, s: sometimes shorter and sometimes longer than it takes to be GONE.
FREEZE_S = (0.5, 12.0)
#: So many kills hit some task three times by chance; that is not what quarantine is for.
NO_QUARANTINE = {"NXS_LOST_HOLDERS": "1000"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    title: str
    app: str
    env: Mapping[str, str] = field(default_factory=dict)
    has_control: bool = False
    #: After the last act: until then all should be done, s.
    settles_within_s: float = 120.0
    visibility_s: float | None = None

    def environment(self, url: str, directory: Path, worked: Path) -> dict[str, str]:
        """Of all its processes."""
        return {
            "CHAOS_BROKER": url,
            "CHAOS_LEDGER": str(worked),
            "NXS_STATE_DIR": str(directory / STATE),
            **self.env,
        }


def nxs_side(env: Mapping[str, str] | None = None) -> Side:
    """NXS; the settings of `env`, else the quick ones."""
    chosen = {**QUICK, **NO_QUARANTINE} if env is None else env
    return Side("nxs", "NXS", "chaos.fleet_tasks", chosen, has_control=True)


def celery_side(visibility_s: float, grace_s: float) -> Side:
    """Plain Celery with late acks. What is held after `grace_s` waits for its time-out."""
    options = json.dumps({"visibility_timeout": visibility_s})
    return Side(
        "celery",
        "plain Celery",
        "chaos.tasks",
        {"CHAOS_TRANSPORT": options},
        settles_within_s=grace_s,
        visibility_s=visibility_s,
    )
