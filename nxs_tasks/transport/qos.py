"""What a channel of a fleet has delivered and is not done with: kombu's quality of service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from nxs_tasks.store.token import parse
from nxs_tasks.transport.tenure import Tenure


class ClaimingQoS(kombu_redis.QoS):
    """Acknowledges by token. What is not ours (no token) is kombu's."""

    channel: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivery; it is registered already if it was claimed."""
        if parse(delivery_tag) is None:
            super().append(message, delivery_tag)
        else:
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A task has ended."""
        self._end(delivery_tag, requeue=False, fallback=super().ack)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message is refused, or is to be delivered anew."""
        fallback = partial(super().reject, requeue=requeue)
        self._end(delivery_tag, requeue=requeue, fallback=fallback)

    def _end(self, tag: str, requeue: bool, fallback: Callable[[str], None]) -> None:
        tenure: Tenure | None = self.channel.nxs_tenure
        if tenure is None or parse(tag) is None:
            self._require_open()
            fallback(tag)
            return
        tenure.end(tag, self._delivered.get(tag), requeue=requeue)
        virtual.QoS.ack(self, tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Kombu puts back all that a closed channel had delivered, also what still runs.

        What does not run any more is found and given back by the worker itself.
        """
        if self.channel.nxs_tenure is not None:
            for tag in [tag for tag in self._delivered if parse(tag) is not None]:
                del self._delivered[tag]
        if self._delivered:
            self._on_collect.cancel()  # else it is called once more when the process ends
            self._require_open()
        super().restore_unacked_once(stderr)

    def _require_open(self) -> None:
        """Raises a connection error, which a worker survives, where kombu's own would end it.

        A server that goes away while several channels wait for it leaves some of them open on a
        closed connection. What they had delivered, the broker still has.
        """
        transport = self.channel.connection
        if transport is None or transport.client is None:
            raise ConnectionResetError("the channel that the message came by is closed")

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Kombu's clock for messages that were not acknowledged: not ours."""
        if self.channel.nxs_tenure is None:
            super().restore_visible(*args, **kwargs)
