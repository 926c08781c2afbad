"""Where NXS keeps its files on a machine. Imports next to nothing, so that `nxs probe` is quick."""

from __future__ import annotations

import os

#: What `nxs up` keeps, as a fleet of its own, within the state directory.
UP = "up"


def state_folder(given: str = "") -> str:
    """The state directory: the one that is given, or the user's."""
    if given:
        return os.path.expanduser(given)
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return os.path.join(os.path.expanduser(base), "nxs")
