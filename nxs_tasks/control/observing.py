"""The look at the fleet that everybody is judged by, with what is known of the observer itself."""

from __future__ import annotations

from dataclasses import replace

from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.runtime import Runtime

#: A lifecycle that has not run for so many of its periods has not observed.
LONGEST_PAUSE = 3


def look(runtime: Runtime, *, between: bool = False) -> Snapshot:
    """Look, and note that it was done; or only act `between` two looks of the lifecycle job."""
    store, period = runtime.store(), runtime.settings.lifecycle_period
    observation = store.observed if between else store.observe
    since, gap, believed = observation(LONGEST_PAUSE * period)
    return replace(
        store.snapshot(full=True),
        observed_since=since,
        believed_since=believed,
        late_s=max(0.0, gap - period),
    )
