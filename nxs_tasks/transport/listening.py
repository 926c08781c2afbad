"""How a client hears that a result is there: it subscribes when somebody waits, not at each call.

Celery subscribes to a task's channel before it sends the task, and once more for each member of a
group. That asks the result backend at each `delay()`, which waits for a backend that hangs, and
leaves a subscription behind for every result that nobody fetches.

Here a result that somebody is interested in is only noted. Whoever waits then looks; if the result
is not there, subscribes to all that was noted, waits until the server has confirmed that, and looks
again. So nothing can fall between the look and the subscription.
"""

from __future__ import annotations

from typing import Any

from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED
from celery.backends.redis import ResultConsumer
from kombu.utils.encoding import ensure_bytes

from nxs_tasks.clock import SYSTEM

#: Channels in one SUBSCRIBE, and results in one look.
PAGE = 1000
#: Longest wait for a confirmation where the connection has no time-out of its own, s.
CONFIRMED_WITHIN_S = 120.0


class Listener(ResultConsumer):
    """Celery's consumer of results, with subscriptions that wait until they are needed."""

    _pubsub: Any
    subscribed_to: set[bytes]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Keys of results that somebody is interested in, not yet subscribed to.
        self._noted: set[bytes] = set()

    def consume_from(self, task_id: str) -> None:
        """Note interest. Touches no network and no lock: also `then()` and groups come here."""
        key = self._get_key_for_task(task_id)
        self._pending_unsubscribe.discard(key)
        self._noted.add(key)

    def cancel_for(self, task_id: str) -> None:
        """Nobody is interested any more. Never waits: called while garbage is collected."""
        self._noted.discard(self._get_key_for_task(task_id))
        super().cancel_for(task_id)

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Note interest, as `consume_from`."""
        self.consume_from(initial_task_id)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """Look; what is not there yet is subscribed to, and looked at again."""
        super().on_wait_for_pending(result, **kwargs)
        self._listen()

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for the next message, s."""
        self._listen()
        super().drain_events(timeout)

    def _listen(self) -> None:
        if not self._noted:
            return
        try:
            self._ensure(self._subscribe_to_noted, ())
        except self._connection_errors as error:
            raise RuntimeError(E_RETRY_LIMIT_EXCEEDED) from error

    def _subscribe_to_noted(self) -> None:
        with self._locked():
            while keys := self._take_noted():
                try:
                    self._subscribe([key for key in keys if key not in self.subscribed_to])
                    self._look_at(keys)
                except BaseException:
                    self._noted.update(keys)
                    self._reconnect_pubsub()
                    raise

    def _take_noted(self) -> list[bytes]:
        keys: list[bytes] = []
        # One by one: garbage collection may take some away at any moment.
        while self._noted and len(keys) < PAGE:
            try:
                keys.append(self._noted.pop())
            except KeyError:
                break
        return keys

    def _subscribe(self, keys: list[bytes]) -> None:
        if not keys:
            return
        if self._pubsub is None:
            self._pubsub = self.backend.client.pubsub()
        self.subscribed_to.update(keys)
        self._pubsub.subscribe(*keys)
        self._pubsub.connection.register_connect_callback(self._on_reconnected)
        self._await_confirmation(set(keys))

    def _await_confirmation(self, missing: set[bytes]) -> None:
        patience = self._pubsub.connection.socket_timeout or CONFIRMED_WITHIN_S
        end = SYSTEM.monotonic() + patience
        while missing:
            left = end - SYSTEM.monotonic()
            if left <= 0:
                raise TimeoutError("the result backend does not confirm a subscription")
            message = self._pubsub.get_message(timeout=left)
            kind = message["type"] if message else ""
            if kind == "subscribe":
                missing.discard(ensure_bytes(message["channel"]))
            elif kind == "message":
                self.on_state_change(self._decode_result(message["data"]), message)

    def _look_at(self, keys: list[bytes]) -> None:
        for found in self.backend.client.mget(keys):
            if found:
                self.on_state_change(self._decode_result(found), None)

    def _on_reconnected(self, connection: Any) -> None:
        # The client has subscribed anew by itself. What was told in between nobody has heard.
        self._noted.update(self.subscribed_to - self._pending_unsubscribe)
        self.subscribed_to.clear()

    def _reconnect_pubsub(self) -> None:
        """Begin anew at the next wait, with all that somebody is still interested in."""
        with self._locked():
            pubsub, self._pubsub = self._pubsub, None
            self._on_reconnected(None)
            self._pending_unsubscribe.clear()
            if pubsub is not None:
                if pubsub.connection is not None:
                    pubsub.connection.deregister_connect_callback(self._on_reconnected)
                pubsub.close()
