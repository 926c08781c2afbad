"""Tells systemd what it waits for: that a worker is up, that it lives, that it ends.

Only where systemd asks for it (`Type=notify`, `WatchdogSec=`), by the socket that it names.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)

#: Where systemd listens.
SOCKET = "NOTIFY_SOCKET"
READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


def tell(word: str) -> bool:
    """Send a word; False if nobody wants to hear it, or it cannot be sent."""
    address = os.environ.get(SOCKET, "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract one
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto(word.encode(), address)
    except OSError as error:
        log.debug("systemd is not told %s: %s", word, error)
        return False
    return True
