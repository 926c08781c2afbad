"""The Lua files as callables. redis-py sends EVALSHA and loads a script that the server lost."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from nxs_tasks.store.connect import Client

FOLDER = files("nxs_tasks.store") / "lua"


def text(name: str) -> str:
    """One script, as it stands in its file."""
    return (FOLDER / f"{name}.lua").read_text()


def sparing(script: str) -> str:
    """The same script, allowed to run when the server may use no more memory (Redis 7 and later).

    For what frees memory, or moves what is there: work must go on, or memory never becomes free.
    """
    return f"#!lua flags=allow-oom\n{script}"


def load(client: Client) -> dict[str, Any]:
    """Every script by the name of its file."""
    names = [entry.name.removesuffix(".lua") for entry in FOLDER.iterdir()]
    return {name: client.register_script(text(name)) for name in names}
