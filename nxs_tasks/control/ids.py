"""The id of a task, as callers name it."""

from __future__ import annotations

from typing import Any

from nxs_tasks.errors import IntentRefused


def id_of(task_id: Any) -> str:
    """The id that is given, or that of a result. Raises `IntentRefused` for an empty one."""
    found = str(getattr(task_id, "id", task_id))
    if not found:
        raise IntentRefused("the id is empty")
    return found
