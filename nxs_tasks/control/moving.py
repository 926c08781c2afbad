"""Ask a running task to stop at its next checkpoint and go on elsewhere, or not to."""

from __future__ import annotations

from typing import Any

from nxs_tasks.control.ids import id_of
from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.checkpoint import Migration
from nxs_tasks.policy.fleet.moving import elsewhere, why_not_to
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.checkpoints import Checkpoints


def migrate(runtime: Runtime, task_id: Any, to: str = "") -> Migration:
    """Ask; asked again, the newest target counts. Without a target it is any other instance.

    Raises `IntentRefused` with the reason if it does not run, has no checkpoint, or cannot go
    there; `BrokerError`.
    """
    wanted, store = id_of(task_id), runtime.store()
    checkpoints = Checkpoints(store)
    run = checkpoints.find_run(wanted)
    if run is None:
        raise IntentRefused(
            f"{wanted} is not running (`nxs story {wanted}` tells where it is): "
            "what waits is placed anew when its instance leaves"
        )
    holder, snapshot = run.token.instance, store.snapshot()
    if to:
        why_not = why_not_to(to, run.task, holder, run.queue, snapshot, runtime.settings)
        if why_not:
            raise IntentRefused(f"{run.task}[{wanted}] cannot go to {to}: {why_not}")
    elif not elsewhere(run.task, holder, run.queue, snapshot, runtime.settings):
        raise IntentRefused(
            f"{run.task}[{wanted}] stays with {holder}: no other instance is ACTIVE, knows it and "
            "takes from its queue"
        )
    new = checkpoints.ask(wanted, run, to, whoami())
    return Migration(task_id=wanted, task=run.task, holder=holder, to=to, new=new)


def stay(runtime: Runtime, task_id: Any) -> bool:
    """Take it back; False if nobody had asked, or the task has moved already."""
    return Checkpoints(runtime.store()).take_back(id_of(task_id))
