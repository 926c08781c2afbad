"""Another app on the same queue, whose workers do not know the tasks of the shop."""

from __future__ import annotations

import os

from celery import Celery

from nxs_tasks import Fleet

app = Celery("other", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BROKER"])
fleet = Fleet(app)


@app.task(name="other.look")
def look() -> None:
    """Nothing of the shop is known here."""
