"""Load of this machine, through psutil."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """Load average over 1 minute, cores, memory in bytes; None where it could not be read."""

    load_avg: float | None
    cores: int | None
    memory_used: int | None
    memory_total: int | None


def read_host() -> HostLoad:
    """Read this machine's load. Never raises."""
    try:
        load_avg: float | None = psutil.getloadavg()[0]
    except (OSError, AttributeError):
        load_avg = None
    used: int | None = None
    total: int | None = None
    try:
        memory = psutil.virtual_memory()
        # What cannot be had without swapping; "used" alone counts caches that would be given back.
        used, total = memory.total - memory.available, memory.total
    except (OSError, psutil.Error):
        log.debug("memory could not be read", exc_info=True)
    return HostLoad(
        load_avg=load_avg, cores=psutil.cpu_count(), memory_used=used, memory_total=total
    )
