"""The shop of `deliveries.py` for one test: with its results beside its messages, or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nxs_tasks.store import connect
from tests.conftest import JSON, MakeApp, Server
from tests.integration.deliveries import Shop


@pytest.fixture
def here(url: str, make_app: MakeApp) -> Shop:
    """Results and messages in one database."""
    return Shop(make_app(url, JSON))


@pytest.fixture(params=["same database", "another database", "another server", "prefixes"])
def anywhere(
    request: pytest.FixtureRequest, url: str, tmp_path: Path, make_app: MakeApp
) -> Iterator[Shop]:
    """The shop with its results beside its messages, or elsewhere."""
    conf: dict[str, Any] = dict(JSON)
    other = None
    if request.param == "another database":
        conf["result_backend"] = url.removesuffix("/0") + "/3"
        with connect(conf["result_backend"]) as client:
            client.flushdb()
    elif request.param == "another server":
        other = Server(tmp_path / "other")
        conf["result_backend"] = other.url
    elif request.param == "prefixes":
        conf["broker_transport_options"] = {"global_keyprefix": "a:"}
        conf["result_backend_transport_options"] = {"global_keyprefix": "b"}
    yield Shop(make_app(url, conf))
    if other is not None:
        other.kill()
