"""The app with a fleet of `submission_shop.py`, for one test."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.clock import FakeClock
from tests.conftest import MakeApp
from tests.integration.submission_shop import MakeShop, Shop


@pytest.fixture
def make_shop(make_app: MakeApp) -> MakeShop:
    """`make_shop(url, conf={…}, **settings)`; its clock stands still."""

    def make(url: str, conf: dict[str, Any] | None = None, **settings: Any) -> Shop:
        clock = FakeClock()
        return Shop(make_app(url, conf, clock=clock, **settings), url, clock)

    return make


@pytest.fixture
def submission_shop(make_shop: MakeShop, url: str) -> Shop:
    return make_shop(url)
