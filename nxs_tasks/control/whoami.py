"""Who wants something of the fleet."""

from __future__ import annotations

import getpass
import os
import socket


def whoami() -> str:
    """`user@host` of this process; in a container the user may be a number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
