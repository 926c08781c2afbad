"""Gives what finds no room here to an instance that has it."""

from __future__ import annotations

import logging

from nxs_tasks.policy.fleet.roomier import roomier
from nxs_tasks.transport.tenure import Tenure

log = logging.getLogger(__name__)


class Keeping:
    """Looks at each heartbeat. What is kept since the last one is given away, if that helps."""

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._seen = ""

    def look(self) -> str | None:
        """To which instance it was given, None if to none. Raises `BrokerError`."""
        tenure, seen = self._tenure, self._seen
        kept = tenure.kept
        waits = kept is not None and kept.until is None
        self._seen = kept.token if kept is not None and waits else ""
        if kept is None or not waits or seen != kept.token:
            return None
        found = roomier(kept.task, tenure.instance, tenure.store.snapshot(), tenure.settings)
        if found is None or not tenure.send_kept(found):
            return None
        log.info("%s found no room here for a while, and goes to %s", kept.task, found)
        return found
