"""A worker that shuts down asks what it runs to go on elsewhere, if it can be stopped half-way.

Whatever began the shutdown: a signal, a control message, `nxs drain`. A task that saves stops at
its next checkpoint, and others go on with it; every other task may finish.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from celery.worker import state

from nxs_tasks.errors import IntentRefused
from nxs_tasks.policy.fleet.moving import elsewhere
from nxs_tasks.store.checkpoints import Checkpoints
from nxs_tasks.store.token import parse
from nxs_tasks.transport.checkpoint import declares
from nxs_tasks.transport.tenure import Tenure

log = logging.getLogger(__name__)


class Leaving:
    """Asks each running task once; call `ask` from time to time while the worker leaves."""

    def __init__(self, app: Any, tenure: Tenure) -> None:
        self._app = app
        self._tenure = tenure
        self._asked: set[str] = set()

    def ask(self) -> int:
        """Ask those that were not asked yet; returns how many. Raises `BrokerError`."""
        running = [r for r in list(state.active_requests) if self._may_move(r)]
        return sum(self._ask(request) for request in running)

    def _may_move(self, request: Any) -> bool:
        token = str(request.message.delivery_tag)
        return token not in self._asked and declares(self._app.tasks.get(request.name))

    def _ask(self, request: Any) -> bool:
        tenure, token = self._tenure, parse(request.message.delivery_tag)
        checkpoints = Checkpoints(tenure.store)
        run = None if token is None else checkpoints.run_of(token, request.id)
        if run is None:
            return False
        saved = checkpoints.saved(request.id)
        if saved is not None and saved.move is not None and saved.move.of == tenure.instance:
            # A person may have said where to.
            self._asked.add(str(token))
            return False
        snapshot = tenure.store.snapshot()
        if not elsewhere(run.task, tenure.instance, run.queue, snapshot, tenure.settings):
            # It goes on here; somebody may come who can take it.
            return False
        # One that has not come to its first checkpoint is asked at the next heartbeat.
        with suppress(IntentRefused):
            checkpoints.ask(request.id, run, "", f"{tenure.instance}, which shuts down")
            self._asked.add(str(token))
            log.info("%s[%s] is asked to go on elsewhere", request.name, request.id)
            return True
        return False
