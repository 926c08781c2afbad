"""The transports of a fleet, and the connection that chooses them in place of kombu's.

`Fleet(app)` gives the app this connection class. So URLs, schemes, TLS and failover stay kombu's,
and what reads the app's broker URL (Flower) sees `redis://` as before.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import kombu
from kombu.transport import redis as kombu_redis
from kombu.utils.collections import HashedSeq

from nxs_tasks.transport.consuming import ClaimingMixin
from nxs_tasks.transport.poller import ClaimingPoller

#: The option that gives a worker's channels their tenure.
TENURE_OPTION = "nxs_tenure"


class Channel(ClaimingMixin, kombu_redis.Channel):
    """A channel of a fleet."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, TENURE_OPTION)


class SentinelChannel(ClaimingMixin, kombu_redis.SentinelChannel):
    """A channel of a fleet whose server is found by Sentinel."""

    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, TENURE_OPTION)


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channels of a fleet."""

    Channel = Channel
    _loop: Any = None
    _loop_thread = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = ClaimingPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Called by a worker with an event loop; others poll with a time-out."""
        super().register_with_event_loop(connection, loop)
        self._loop, self._loop_thread = loop, get_ident()

    def is_in_loop(self) -> bool:
        """Whether this is the thread of the event loop."""
        return self._loop is not None and self._loop_thread == get_ident()

    def wake_in(self, seconds: float) -> None:
        """Have the event loop come round after so long, s."""
        if self._loop is not None:
            self._loop.call_later(seconds, _come_round)

    def wake(self) -> None:
        """Have the event loop come round now: for how long it waits may be settled already."""
        waker = getattr(self._loop, "_waker", None)
        if waker is not None:
            waker.wake()

    def call_soon(self, action: Callable[[], object]) -> None:
        """Called in the thread of the event loop: what it does first at its next turn."""
        self._loop.call_soon(action)


class SentinelTransport(Transport):
    """The same for `sentinel://`."""

    default_port = kombu_redis.SentinelTransport.default_port
    Channel = SentinelChannel


def _come_round() -> None:
    """Nothing: the event loop polls after each timer."""


#: kombu's transports by the one that a fleet has in their place.
REPLACED = {
    kombu_redis.Transport: Transport,
    kombu_redis.SentinelTransport: SentinelTransport,
}


class Connection(kombu.Connection):
    """A connection of an app with a fleet."""

    def get_transport_cls(self) -> Any:
        """The fleet's transport in place of kombu's own; any other as it is."""
        found = super().get_transport_cls()
        return REPLACED.get(found, found)

    def ensure_connection(
        self,
        errback: Any = None,
        max_retries: int | None = None,
        interval_start: float = 1,
        interval_step: float = 0,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As kombu's, but with a try each second: its pauses grow to 30 s, while work waits."""
        return super().ensure_connection(
            errback, max_retries, interval_start, interval_step, *args, **kwargs
        )

    def info(self) -> dict[str, Any]:
        """As kombu's, of the options only what can be sent: remote control asks for it."""
        known = dict(super().info())
        options = dict(known.get("transport_options") or {})
        options.pop(TENURE_OPTION, None)
        return {**known, "transport_options": options}

    def __eqhash__(self) -> Any:
        # kombu's pools take connections of equal hash for the same; a plain app in this process
        # with the same URL must not be given ours.
        return HashedSeq(type(self), *super().__eqhash__())
