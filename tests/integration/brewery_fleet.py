"""An app with one task, which is slow on an instance for which there is a file of its name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from nxs_tasks import Fleet

URL = os.environ["SHOP_BROKER"]
#: In here lies a file with the name of each instance that is slow.
SLOW = Path(os.environ["BREWERY_SLOW"])
USUAL_S, SLOW_S = 0.05, 0.6

app = Celery("brewery", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)
fleet = Fleet(app)


@app.task(name="brewery.brew", bind=True)
def brew(self: Any) -> None:
    slow = (SLOW / str(self.request.hostname)).exists()
    time.sleep(SLOW_S if slow else USUAL_S)  # noqa: TID251 - what a task of a user would do
