"""The stories of the control plane as Celery canvas: which step follows which, and when.

What a step does, and whether it does anything, is in a module of its own. The folder `workflows/`
beside this package shows each story by its name.
"""

from __future__ import annotations

from typing import Any

from celery import chain

from nxs_tasks.runtime import CONTROL_TASKS

#: What the names of the steps of `evict_zombie` begin with; see `nxs_tasks.control.evicting`.
EVICT = CONTROL_TASKS + "evict_zombie."


def evict_zombie(app: Any, instance: str, epoch: int, grace_s: float, expires_s: float) -> Any:
    """Ask it to end; after the grace close its connections; give back what it held.

    A step that waited for longer than `expires_s`, s, is not done any more.
    """

    def step(name: str) -> Any:
        return app.signature(EVICT + name, (instance, epoch), immutable=True, app=app)

    return chain(
        step("ask").set(expires=expires_s),
        step("cut").set(countdown=grace_s, expires=grace_s + expires_s),
        step("end").set(expires=expires_s),
        app=app,
    )
