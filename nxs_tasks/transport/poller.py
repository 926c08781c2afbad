"""Waits for what comes by the connections of several channels: kombu's poller, for notices too."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from nxs_tasks.clock import SYSTEM


class ClaimingPoller(kombu_redis.MultiChannelPoller):
    """kombu's poller, for channels whose connection may also bring notices."""

    #: When the event loop came round last, monotonic, s; None if it has not yet.
    turned: float | None = None

    def on_poll_start(self) -> None:
        """Before each wait: whoever has waited long enough asks again."""
        self.turned = SYSTEM.monotonic()
        for channel in self._channels:
            channel.lose_connection_if_wanted()
            channel.ask_again_if_due()
            channel.give_back_if_late()
        super().on_poll_start()
        for channel in self._channels:
            channel.after_starts()

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait without an event loop, and no longer than until somebody is to ask again."""
        self.turned = SYSTEM.monotonic()
        waits = [timeout]
        for channel in self._channels:
            waits += [channel.waits_s(), channel.ahead_waits_s()]
        known = [seconds for seconds in waits if seconds is not None]
        super().get(callback, timeout=min(known, default=None))

    def on_readable(self, fileno: int) -> Any:
        """Data came: an answer, a notice, or the end of the connection."""
        found = self._fd_to_chan.get(fileno)
        if found is not None and found[1] == "BRPOP" and not found[0]._in_poll:
            # A busy worker awaits no more than what it asks ahead. kombu takes data then for the
            # end of the connection.
            channel = found[0]
            return channel.read_ahead() if channel._asks_ahead else channel.read_notices()
        return super().on_readable(fileno)
