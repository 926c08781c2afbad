"""A live fleet for one test, and the account of what ran in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ledger import Ledger, a_ledger
from tests.integration.live import Live

pytest_plugins = ["tests.integration.live_fixtures"]


@pytest.fixture
def ledger(live: Live) -> Iterator[Ledger]:
    with a_ledger(live) as ledger:
        yield ledger
