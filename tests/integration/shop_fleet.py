"""The same app with the one line."""

from __future__ import annotations

from nxs_tasks import Fleet
from tests.integration.shop import add, app, fail, flaky, nap, total, video

__all__ = ["add", "app", "fail", "flaky", "fleet", "nap", "total", "video"]

fleet = Fleet(app)
