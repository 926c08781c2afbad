"""A live fleet for one test, and the shop's module against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.live import Live, live_fleet, shop_app


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A server of the test's own and room for processes on it; ends all."""
    with live_fleet(tmp_path) as live:
        yield live


@pytest.fixture
def shop(live: Live) -> Iterator[Any]:
    """The shop with its fleet, in this process."""
    with shop_app(live) as module:
        yield module
