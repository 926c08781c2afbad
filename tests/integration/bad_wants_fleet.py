"""An app with a task that declares nonsense."""

from __future__ import annotations

from tests.integration.wants_fleet import app, fleet

__all__ = ["app", "fleet"]


@app.task(name="wants.nonsense", memory="much")
def nonsense() -> None:
    """Never run."""
