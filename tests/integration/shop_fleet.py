"""The same app with the one line."""

from __future__ import annotations

from nxs_tasks import Fleet
from tests.integration.shop import add, app, fail, flaky, nap, total, video

__all__ = ["add", "app", "fail", "flaky", "fleet", "nap", "outer", "total", "video"]

fleet = Fleet(app)


@app.task(name="shop.outer")
def outer(count: int) -> list[str]:
    """Submit some tasks and return their ids."""
    first = fleet.submit(add, (0, 0))
    return [first.id, *fleet.submit_many(add, [(n, n) for n in range(1, count)]).ids]
