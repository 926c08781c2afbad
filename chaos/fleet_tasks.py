"""The same app with the one line."""

from __future__ import annotations

from chaos.tasks import again, app, work
from nxs_tasks import Fleet

__all__ = ["again", "app", "fleet", "work"]

fleet = Fleet(app)
