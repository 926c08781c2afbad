"""The Lua files as callables. redis-py sends EVALSHA and loads a script that the server lost."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from nxs_tasks.store.connect import Client

NAMES = (
    "forget",
    "heartbeat",
    "join",
    "lease",
    "move",
    "note",
    "observe",
    "resign",
    "snapshot",
    "tidy",
    "transition",
)


def load(client: Client) -> dict[str, Any]:
    """Every script by the name of its file."""
    folder = files("nxs_tasks.store") / "lua"
    return {name: client.register_script((folder / f"{name}.lua").read_text()) for name in NAMES}
