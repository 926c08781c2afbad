"""The app of the live tests with tasks that declare what they want of their instance.

Each works for so long and returns where, and from when to when (wall time).
"""

from __future__ import annotations

import time
from typing import Any

from tests.integration.shop_fleet import app, fleet

__all__ = ["app", "fleet"]


def _work(self: Any, seconds: float) -> tuple[str, float, float]:
    start = time.time()  # noqa: TID251 - what a task of a user would do
    time.sleep(seconds)  # noqa: TID251
    return self.request.hostname, start, time.time()  # noqa: TID251


def _model(self: Any, model: str, seconds: float) -> tuple[str, float, float]:
    return _work(self, seconds)


def _fragile(self: Any, seconds: float) -> tuple[str, float, float]:
    if self.request.hostname == "hole@t":
        raise RuntimeError("as asked")
    return _work(self, seconds)


app.task(name="wants.fragile", bind=True)(_fragile)
app.task(name="wants.nothing", bind=True)(_work)
app.task(name="wants.gpu", bind=True, needs={"gpu"})(_work)
app.task(name="wants.slots", bind=True, slots=2)(_work)
app.task(name="wants.memory", bind=True, memory="6 GB")(_work)
app.task(name="wants.too_much", bind=True, memory="900 GB")(_work)
app.task(name="wants.model", bind=True, affinity="model:{model}")(_model)
