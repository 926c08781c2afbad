"""Which files the census counts, where they are, and how a file is written whole."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

#: Folders inside the standard library's that hold other people's packages, or no sources.
LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__"})


def stdlib() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def listing(root: Path) -> list[str]:
    """Every `.py` file under `root`, relative, with forward slashes, sorted."""
    found: list[str] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in LEFT_OUT]
        here = Path(folder).relative_to(root)
        found += [(here / name).as_posix() for name in names if name.endswith(".py")]
    return sorted(found)


def locate(root: Path, relative: str) -> Path:
    """The path of a listed file. A name that leads out of `root` is refused."""
    path = Path(os.path.normpath(root / relative))
    if not path.is_relative_to(root):
        raise ValueError(f"{relative!r} is not below {root}")
    return path


def write(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that others see all of it or nothing; `durable` waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as target:
        target.write(data)
        if durable:
            target.flush()
            os.fsync(target.fileno())
    partial.replace(path)
