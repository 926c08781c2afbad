"""How a task ended, as far as the message that it came by is concerned.

Celery says "acknowledge" or "requeue" and not why. Three whys matter: the pool process that ran the
task died (the message has lost a holder), the task will be retried (it is not done, so it keeps its
`unique_key`), and it has stopped at a checkpoint (its message goes where it is to go on).

Celery also says it by way of its event loop, which forgets what it had still to do when it loses
the broker: a task that was done would run again. So the broker is told here, at once.
"""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from nxs_tasks.transport.checkpoint import Moved
from nxs_tasks.transport.tenure import Tenure

#: How Celery hears that a pool process is no more.
DEATHS = (WorkerLostError, SystemExit, KeyboardInterrupt)


class EndingMixin:
    """For Celery's `Request`: tells the tenure before Celery settles the message."""

    tenure: Tenure
    message: Any
    acknowledged: bool

    @property
    def eta(self) -> None:
        """None: what the gate lets through is due. Celery would put it on a timer, with no slot."""
        return None

    def acknowledge(self) -> Any:
        """The task is done with."""
        if not self.acknowledged:
            self.tenure.end(self.message.delivery_tag, self.message, requeue=False)
        return super().acknowledge()  # type: ignore[misc]

    def reject(self, requeue: bool = False) -> Any:
        """The message is refused, or is to be delivered anew."""
        if not self.acknowledged:
            self.tenure.end(self.message.delivery_tag, self.message, requeue=requeue)
        return super().reject(requeue=requeue)  # type: ignore[misc]

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the death of a pool process, and keep a task that could not be retried."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Reject) and isinstance(error.reason, OperationalError):
            # Celery gives up a task whose retry it could not send. Its message is still here.
            error.requeue = True
        if isinstance(error, Moved) and not self.acknowledged:
            self.tenure.moving.add(self.message.delivery_tag)
        if isinstance(error, DEATHS) and not self.acknowledged:
            self.tenure.lost.add(self.message.delivery_tag)
        return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]

    def on_retry(self, exc_info: Any) -> Any:
        """Note that the task goes on under another message."""
        if not self.acknowledged:
            self.tenure.unfinished.add(self.message.delivery_tag)
        return super().on_retry(exc_info)  # type: ignore[misc]
