"""What escapes Celery's tracer in a pool without processes.

Such a pool tells nobody: the task would count as running, and its message be held, until the
process ends. A body that cannot be read escapes, and an error while a result is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.app.trace import report_internal_error


def tell_what_escapes(pool: Any, tasks: Any) -> None:
    """Have a pool answer for every job, as one of processes does. `tasks` is Celery's registry."""
    if pool.uses_semaphore:
        return
    apply_async = pool.apply_async

    def apply_told(trace: Callable[..., Any], *rest: Any, **options: Any) -> Any:
        return apply_async(partial(_told, trace, tasks), *rest, **options)

    pool.apply_async = apply_told


def _told(trace: Callable[..., Any], tasks: Any, name: str, *rest: Any) -> Any:
    try:
        return trace(name, *rest)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who waits
        return 1, report_internal_error(tasks[name], error), 0.0
