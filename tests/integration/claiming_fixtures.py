"""Processes that take messages, and what stands between them and the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nxs_tasks.transport import consuming
from tests.integration.cable import Cable, a_cable
from tests.integration.claiming import MakeTaker, Taker


@pytest.fixture
def make_taker() -> Iterator[MakeTaker]:
    made: list[Taker] = []

    def make(url: str, **options: Any) -> Taker:
        made.append(Taker(url, **options))
        return made[-1]

    yield make
    for taker in made:
        taker.close()


@pytest.fixture
def taker(url: str, make_taker: MakeTaker) -> Taker:
    return make_taker(url)


@pytest.fixture
def cable(url: str) -> Iterator[Cable]:
    with a_cable(url) as cable:
        yield cable


@pytest.fixture
def only_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks again because time has passed: whoever wakes up was told."""
    monkeypatch.setattr(consuming, "ASK_AGAIN_S", 3600.0)
