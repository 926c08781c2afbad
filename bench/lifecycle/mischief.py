"""What can go wrong with a worker's consumer, done on purpose from outside by remote control.

Loaded by the app of a worker: `unwatch` has its event loop watch its claim connection no more,
though that stays open, as after a lost callback; `go_deaf` does so again and again, so that nothing
heals it but a new process; `hang` has the event loop come round no more; `mute` has the worker send
no heartbeat more.
"""

from __future__ import annotations

import threading
from typing import Any

from celery.worker.control import control_command


@control_command()
def unwatch(state: Any, **_: Any) -> dict[str, Any]:
    """The answers of the claim connection are read by nobody any more."""
    _unwatch(state.consumer)
    return {"ok": "unwatched"}


@control_command()
def go_deaf(state: Any, **_: Any) -> dict[str, Any]:
    """The same after each remedy."""
    consumer = state.consumer

    def again() -> None:
        _unwatch(consumer)
        consumer.hub.call_later(0.1, again)

    again()
    return {"ok": "deaf"}


@control_command()
def mute(state: Any, **_: Any) -> dict[str, Any]:
    """It works, and nobody hears of it."""
    for step in state.consumer.controller.steps:
        heartbeat = getattr(step, "_heartbeat", None)
        if heartbeat is not None:
            heartbeat.beat_safely = lambda last=False: None
    return {"ok": "muted"}


@control_command()
def hang(state: Any, **_: Any) -> dict[str, Any]:
    """The event loop does not come round any more."""
    threading.Event().wait()
    return {"ok": "never said"}


def _unwatch(consumer: Any) -> None:
    channel: Any = getattr(consumer.task_consumer, "channel", None)
    connection = getattr(getattr(channel, "client", None), "connection", None)
    sock = getattr(connection, "_sock", None)
    if channel is None or sock is None:
        return
    # A question is on its way, and the poller adds what it knows to the loop at each turn.
    cycle = channel.connection.cycle
    channel._in_poll, channel._waits_until = connection, None
    cycle._fd_to_chan.pop(sock.fileno(), None)
    consumer.hub.remove(sock.fileno())
