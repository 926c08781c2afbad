"""`fleet.checkpoint()`: how far a running task is, kept where its next holder finds it.

A task that has saved can be stopped there, and goes on with another instance; or with whoever gets
its message after its process has died. What a late copy saves is refused.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from celery.exceptions import Reject

from nxs_tasks.errors import BrokerError, BrokerUnreachable, CheckpointError, Stale
from nxs_tasks.settings import Settings
from nxs_tasks.store.checkpoints import DAY_MS, Checkpoints
from nxs_tasks.transport.fence import Acting, Fence, taken

log = logging.getLogger(__name__)
#: Where Celery logs how tasks end.
ENDS = "celery.app.trace"

#: The option of a task that declares that it can move while it runs: `@app.task(checkpoint=True)`.
OPTION = "checkpoint"
#: As the setting of the spool has it.
MB = 1_000_000


class Moved(Reject):
    """A task stops at its checkpoint, and goes on elsewhere with the same id.

    To Celery it is its own `Reject`: no result, no handlers, no failure. A task lets it pass.
    """

    def __init__(self, reason: Any = None, requeue: bool = True) -> None:
        super().__init__(reason, requeue)


class Quietly(logging.Filter):
    """For Celery's log of ends of tasks: a move is no error, and needs no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        if record.exc_info and isinstance(record.exc_info[1], Moved):
            record.exc_info, record.exc_text = None, None
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return True


class Checkpoint:
    """Where the running task has come to. For one task; safe to use in any of its threads."""

    def __init__(self, fence: Fence, acting: Acting, settings: Settings) -> None:
        """Reads what was saved last. Raises `Taken`; `Reject` if the broker does not answer.

        Who cannot know how far it was must not begin anew: its message is given back.
        """
        self._acting = acting
        self._settings = settings
        self._checkpoints = Checkpoints(fence.store())
        self._kept_ms = settings.checkpoint_days * DAY_MS
        try:
            self._text = self._checkpoints.open(acting.id, acting.task, acting.token, self._kept_ms)
        except Stale:
            raise taken(acting) from None
        except BrokerUnreachable as error:
            raise Reject(f"its checkpoint cannot be read: {error}", requeue=True) from None

    @property
    def state(self) -> Any:
        """What was saved last, a JSON value of your own to change; None if nothing was."""
        return json.loads(self._text) if self._text else None

    def save(self, state: Any) -> bool:
        """Keep a JSON value. May end the task here, to go on elsewhere: raises `Moved`.

        False if the broker did not take it: then what was saved before holds, and the task goes on.
        Raises `CheckpointError` for what is not JSON or too large, `Taken` if the message was
        taken from this process.
        """
        text = self._encoded(state)
        acting = self._acting
        try:
            to = self._checkpoints.save(acting.id, acting.task, acting.token, text, self._kept_ms)
        except Stale:
            raise taken(acting) from None
        except BrokerError as error:
            # What it has done so far is no reason to fail: only more of it may be done again.
            log.warning("%s goes on without a new checkpoint: %s", acting, error)
            return False
        self._text = text
        if to is not None:
            raise Moved(f"goes on with {to or 'another instance'}")
        return True

    def _encoded(self, state: Any) -> str:
        try:
            text = json.dumps(state, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            # Never the value: it may be somebody's secret.
            raise CheckpointError(
                f"{self._acting}: what it saves is not JSON ({type(error).__name__}): save "
                "numbers, texts, lists, mappings with texts as keys, True, False and None"
            ) from None
        limit = self._settings.checkpoint_limit
        if len(text) > limit * MB:
            raise CheckpointError(
                f"{self._acting}: what it saves is {len(text) / MB:.2f} MB, and may be {limit:g} MB"
                " (setting checkpoint_limit): save where it lies, not what it is"
            )
        return text


def declares(task: Any) -> bool:
    """Whether a task can move while it runs."""
    return getattr(task, OPTION, False) is True


def checkpoint_of(fence: Fence, tasks: Any, settings: Settings) -> Checkpoint:
    """The checkpoint of the task that runs in this thread. `tasks` is Celery's registry.

    Raises `CheckpointError` outside of a task, and for a task that does not declare it.
    """
    acting = fence.acting()
    if acting is None:
        raise CheckpointError(
            "fleet.checkpoint() is for a task that a worker of the fleet runs in this thread, and "
            "that is acknowledged at its end (acks_late)"
        )
    if not declares(tasks.get(acting.task)):
        raise CheckpointError(
            f"the task {acting.task} does not say that it can move while it runs: declare it with "
            f"`@app.task({OPTION}=True)`"
        )
    return Checkpoint(fence, acting, settings)
