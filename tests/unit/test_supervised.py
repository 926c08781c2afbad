"""What systemd is told, by a socket as it listens on one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nxs_tasks.worker.supervised import ALIVE, READY, SOCKET, tell


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_it_is_told_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + path if abstract else path)
        systemd.settimeout(10)
        monkeypatch.setenv(SOCKET, "@" + path if abstract else path)
        assert tell(READY)
        assert tell(ALIVE)
        assert [systemd.recv(100), systemd.recv(100)] == [b"READY=1", b"WATCHDOG=1"]


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET, raising=False)
    assert not tell(READY)


def test_who_listens_no_more_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET, str(tmp_path / "nobody"))
    assert not tell(ALIVE)
