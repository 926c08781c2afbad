"""Queues and exchanges on the broker, through a kombu connection that does nothing else.

A task for a queue needs none of it: its list is known. kombu declares the queue all the same when
it is first published to, and where a named exchange leads is known only to the broker. Each of
these is done in a thread that is left behind when the time is over.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from kombu import Producer
from kombu.common import maybe_declare

from nxs_tasks.deadline import Deadline, within
from nxs_tasks.errors import BrokerError, BrokerUnreachable
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.connect import explained

log = logging.getLogger(__name__)

T = TypeVar("T")


class Topology:
    """Declares, and looks up. Safe to use in any thread, and after a fork."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[object] = set()
        self._routes: dict[tuple[str, str], list[str]] = {}

    def declare(self, entities: Iterable[Any], deadline: Deadline) -> None:
        """Declare what was not declared yet; left for the next time if the broker is away."""
        new = [e for e in entities if not _is_silent(e) and _name(e) not in self._declared]
        if not new:
            return

        def declare(channel: Any) -> None:
            for entity in new:
                maybe_declare(entity, channel)

        try:
            self._with_channel(declare, deadline)
        except BrokerUnreachable:
            return
        except BrokerError as error:
            log.warning("%s is not declared: %s", ", ".join(str(e.name) for e in new), error)
        self._declared.update(map(_name, new))

    def queues_of(self, exchange: str, routing_key: str, deadline: Deadline) -> list[str] | None:
        """The queues that a named exchange leads to, as kombu finds them; None for a fanout.

        As they were before if the broker does not answer. Raises `BrokerError` if that is unknown.
        """

        def look(channel: Any) -> list[str] | None:
            if channel.typeof(exchange).type == "fanout":
                return None
            dead = channel.deadletter_queue
            return [q for q in channel._lookup(exchange, routing_key) if q and q != dead]

        try:
            found = self._with_channel(look, deadline)
        except BrokerUnreachable:
            known = self._routes.get((exchange, routing_key))
            if known is None:
                raise
            return known
        if found is not None:
            self._routes[exchange, routing_key] = found
        return found

    def publish(self, body: Any, options: dict[str, Any], deadline: Deadline) -> None:
        """Publish as kombu does it, with no second try. Raises `BrokerError`."""
        options = {**options, "retry": False}
        self._with_channel(lambda channel: Producer(channel).publish(body, **options), deadline)

    def _with_channel(self, call: Callable[[Any], T], deadline: Deadline) -> T:
        if self._runtime.breaker.open:
            raise BrokerUnreachable(self._runtime.breaker.why)

        def run() -> T:
            with self._lock:
                try:
                    channel = self._opened()
                    if deadline.over:
                        # Nobody waits any more, and what is said not to be sent must not be.
                        raise BrokerUnreachable("the time for it is over")
                    return call(channel)
                except BaseException:
                    self._drop()
                    raise

        with explained(self._runtime.broker_url):
            return within(deadline.remaining(), run)

    def _opened(self) -> Any:
        if self._channel is None:
            seconds = self._runtime.settings.broker_timeout
            timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
            self._connection = self._runtime.app.connection_for_write(transport_options=timeouts)
            self._connection.connect()
            self._channel = self._connection.channel()
        return self._channel

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            connection.collect(socket_timeout=None)


def _is_silent(entity: Any) -> bool:
    return bool(getattr(entity, "no_declare", False))


def _name(entity: Any) -> object:
    exchange = getattr(entity, "exchange", None)
    where = (getattr(exchange, "name", None), getattr(entity, "routing_key", None))
    return (type(entity).__name__, entity.name, *where)
