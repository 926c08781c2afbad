"""What can be done to the consumer of a Celery worker that takes no work, one function each.

They are called by the heartbeat's thread, and Celery's consumer belongs to its event loop. So most
only ask the loop to do it when it comes round, and none waits.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from typing import Any

from celery.bootsteps import RUN

from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.displaced import end_worker

log = logging.getLogger(__name__)

#: Exit code of a worker that ends to be started anew: sysexits' EX_TEMPFAIL.
EXIT_ANEW = 75


def consume_again(worker: Any, queues: Iterable[str]) -> None:
    """Have it consume the queues beside those that it consumes, and before them."""
    wanted = list(queues)
    worker.consumer.call_soon(_consume, worker, wanted)


def _consume(worker: Any, wanted: list[str]) -> None:
    known, consumer = worker.app.amqp.queues, worker.consumer.task_consumer
    others = [name for name in known.consume_from if name not in wanted]
    # Cancelled by remote control, a queue is not selected any more, also after the next connection.
    known.select([*wanted, *others])
    if consumer is None:
        return  # it is connecting, and consumes what is selected
    # The own queue is looked at first because it is consumed first.
    consumer.cancel()
    consumer.queues = [known[name](consumer.channel) for name in (*wanted, *others)]
    consumer.consume()


def connect_anew(worker: Any, tenure: Tenure, why: str) -> None:
    """Have Celery's consumer lose its connection: it makes everything anew that hangs on it."""
    if worker.consumer.hub is None:
        # Without an event loop whatever is called soon may not fail.
        tenure.lose = why
        return

    def lose() -> None:
        raise ConnectionResetError(why)

    worker.consumer.call_soon(lose)


def pool_restarts(worker: Any) -> bool:
    """Whether its pool can be restarted: processes, where Celery was told so."""
    return bool(getattr(worker, "pool_restarts", False)) and hasattr(
        getattr(worker.pool, "_pool", None), "_poolctrl"
    )


def restart_pool(worker: Any) -> None:
    """Have each process of the pool replaced when what it runs has ended."""
    worker.consumer.call_soon(worker.pool.restart)


def end() -> None:
    """Have it shut down warmly, with an exit code that asks for a new start."""
    end_worker(EXIT_ANEW)


def runs(worker: Any) -> bool:
    """Whether it works, and is not shutting down."""
    return bool(worker.blueprint.state == RUN)


def kill() -> None:
    """End this process, with its pool, where its event loop does not come round any more."""
    log.critical("this worker cannot shut down and kills itself")
    os.kill(os.getpid(), signal.SIGKILL)
