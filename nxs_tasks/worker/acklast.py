"""A failure that the worker's main process reports is stored first, and acknowledged then.

Where a pool process dies, the main process stores the failure in its place. Celery acknowledges the
message before it does so. A result of a task counts only while its message is held, so here the
acknowledgement waits; and a main process that dies in between leaves a message behind, and not a
task without an end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nxs_tasks.transport.fence import fence_of
from nxs_tasks.transport.tenure import Tenure


class AckLastMixin:
    """For Celery's `Request`."""

    app: Any
    tenure: Tenure
    message: Any
    _context: Any
    _nxs_waiting: list[Callable[[], Any]] | None = None
    _nxs_failed = False

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Report the failure on behalf of the request, and settle the message at the end."""
        self._nxs_waiting, self._nxs_failed = [], True
        # Celery has forgotten the request by now, and what comes may take its time: a result
        # backend, somebody's signal handlers.
        with self.tenure.ends(self.message.delivery_tag):
            try:
                with fence_of(self.app).on_behalf_of(self._context):
                    return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]
            finally:
                waiting, self._nxs_waiting = self._nxs_waiting, None
                for settle in waiting or ():
                    settle()

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Report a time limit; a hard one that was reported as a failure already is no second."""
        if not soft and self._nxs_failed:
            return None
        with self.tenure.ends(self.message.delivery_tag):
            return super().on_timeout(soft, timeout)  # type: ignore[misc]

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> Any:
        with self.tenure.ends(self.message.delivery_tag):
            return super()._announce_revoked(*args, **kwargs)  # type: ignore[misc]

    def acknowledge(self) -> Any:
        """Acknowledge, later if a failure is being reported."""
        return self._now_or_later(super().acknowledge)  # type: ignore[misc]

    def reject(self, requeue: bool = False) -> Any:
        """Refuse the message, later if a failure is being reported and it will not come back."""
        refuse = super().reject  # type: ignore[misc]
        return refuse(requeue) if requeue else self._now_or_later(refuse)

    def _now_or_later(self, settle: Callable[[], Any]) -> Any:
        if self._nxs_waiting is None:
            return settle()
        self._nxs_waiting.append(settle)
        return None
