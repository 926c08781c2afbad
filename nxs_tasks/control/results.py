"""What the result backend says of a task, and is told of a cancelled one."""

from __future__ import annotations

from typing import Any

from celery.states import PENDING, REVOKED

from nxs_tasks.errors import ResultsUnreachable

#: What whoever waits for the result is told, as the text of a `TaskRevokedError`.
REASON = "cancelled"


class Results:
    """The results of one app, whatever backend it has."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def state(self, task_id: str) -> str:
        """The state of a task's result; "" if there is none, or it cannot be told."""
        try:
            state = str(self._app.AsyncResult(task_id).state)
        except Exception:  # noqa: BLE001 - each backend has errors of its own, and some cannot tell
            return ""
        return "" if state == PENDING else state

    def revoke(self, task_id: str, task: str) -> None:
        """Have the result say REVOKED. Raises `ResultsUnreachable`."""
        registered = self._app.tasks.get(task)
        backend = self._app.backend if registered is None else registered.backend
        try:
            backend.mark_as_revoked(task_id, REASON)
        except Exception as error:  # noqa: BLE001 - of any backend
            # Not its text, which may hold an address with a password.
            raise ResultsUnreachable(
                f"the result backend cannot be told ({type(error).__name__})"
            ) from None

    def forget_revoked(self, task_id: str) -> None:
        """Remove a result that says REVOKED, if there is one. Raises `ResultsUnreachable`."""
        if self.state(task_id) != REVOKED:
            return
        try:
            self._app.backend.forget(task_id)
        except Exception as error:  # noqa: BLE001 - of any backend
            raise ResultsUnreachable(
                f"the result backend cannot forget ({type(error).__name__})"
            ) from None
