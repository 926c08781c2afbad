"""Tasks on their way into a pool process at the moment when the broker is lost.

Celery forgets them then, because a broker delivers again what was not acknowledged. But the process
has them and runs them, and here they stay this worker's own through a lost connection. So their end
must be heard, or they would be given back, and run a second time.
"""

from __future__ import annotations

from typing import Any


def requests_in(pool: Any) -> list[Any]:
    """Celery's requests of all that a pool of processes has, also of what Celery has forgotten."""
    callbacks = (job._accept_callback for job in list(_jobs(pool).values()))
    return [callback.__self__ for callback in callbacks if hasattr(callback, "__self__")]


def keep_handed(pool: Any) -> None:
    """Have a pool forget only what no process was given. A pool without processes keeps all."""
    flush, jobs = getattr(pool, "flush", None), _jobs(pool)
    if flush is None:
        return

    def flush_the_rest() -> None:
        handed = {n: job for n, job in jobs.items() if job._write_to and not job.accepted()}
        flush()
        jobs.update(handed)

    pool.flush = flush_the_rest


def _jobs(pool: Any) -> dict[int, Any]:
    jobs: dict[int, Any] | None = getattr(getattr(pool, "_pool", None), "_cache", None)
    return {} if jobs is None else jobs
