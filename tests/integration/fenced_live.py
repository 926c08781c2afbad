"""The app of `fenced_shop.py` against a live fleet, and what its tasks tell apart from results."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.live import Live

SHOP = "tests.integration.fenced_shop"


class Told:
    """What the tasks have told, and what they are told."""

    def __init__(self, live: Live, module: Any) -> None:
        self._client = live.store.client
        self._module = module

    def starts(self) -> list[str]:
        """`TASK ID:NODE` for each start of a task that waits to be told to end."""
        return [str(line) for line in self._client.lrange(self._module.STARTS, 0, -1)]

    def said(self) -> list[str]:
        """Whatever else tasks told."""
        return [str(line) for line in self._client.lrange(self._module.SAID, 0, -1)]

    def end(self, node: str) -> None:
        """Have the tasks of a node end."""
        self._client.set(self._module.go(node), "1")

    def forget(self, *nodes: str) -> None:
        """As if nothing had been told."""
        keys = [self._module.go(node) for node in nodes]
        self._client.delete(self._module.SAID, self._module.STARTS, *keys)


@contextmanager
def fenced_app(live: Live) -> Iterator[Any]:
    """The app's module, loaded in this process against the live server."""
    names = (SHOP, "tests.integration.shop")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in live.env.items():
            if name.startswith(("NXS_", "SHOP_")):
                patch.setenv(name, value)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(SHOP)
        yield module
        gc.collect()
        module.app.close()
        for name in names:
            sys.modules.pop(name, None)
