"""A script on the results' server that runs only while the acting task's message is held."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from nxs_tasks.store.guard import guarded, held_in, is_taken, place_of
from nxs_tasks.transport.fence import Acting, Fence, taken

log = logging.getLogger(__name__)

#: How a server says that its access rules forbid a part of a script.
FORBIDDEN = ("ACL failure", "NOPERM", "No permissions")


class Desk:
    """Where one result backend writes, and how it asks before it does.

    One script asks and writes, if results and messages are on one server: the database may differ.
    Otherwise, or if the server's access rules forbid one script to do both, it asks first and then
    writes, with the time of a round trip between.
    """

    def __init__(self, client: Any, fence: Fence) -> None:
        self.client = client
        self.fence = fence
        here, broker = place_of(client), place_of(fence.store().client)
        self.one_server = here.server == broker.server
        self._databases = ("" if here.db == broker.db else str(broker.db), str(here.db))

    def last_keys(self, acting: Acting) -> list[str]:
        """What guard.lua wants as the last of KEYS."""
        return [held_in(self.fence.store(), acting.token)]

    def last_arguments(self, acting: Acting) -> list[str]:
        """What guard.lua wants as the last of ARGV."""
        return [str(acting.token), *self._databases]

    def ask_apart(self, error: Exception) -> bool:
        """Whether the server forbids one script to ask and write; if so it is not tried again."""
        if not any(sign in str(error) for sign in FORBIDDEN):
            return False
        log.warning(
            "results are checked and stored in two steps, the server forbids one: %s", error
        )
        self.one_server = False
        return True


class Guarded:
    """One script. Called as redis-py's own, with `keys`, `args` and perhaps a `client`."""

    def __init__(self, desk: Desk, text: str) -> None:
        self._desk = desk
        self._plain = desk.client.register_script(text)
        self._guarded = desk.client.register_script(guarded(text))

    def __call__(self, keys: Iterable[Any], args: Iterable[Any], client: Any = None) -> Any:
        """Run it. Raises `Taken`, and whatever the client raises."""
        desk, acting = self._desk, self._desk.fence.acting()
        if acting is None:
            return self._plain(keys=list(keys), args=list(args), client=client)
        if desk.one_server:
            try:
                return self._at_once(list(keys), list(args), client, acting)
            except Exception as error:
                if not desk.ask_apart(error):
                    raise
        desk.fence.ask(acting)
        return self._plain(keys=list(keys), args=list(args), client=client)

    def _at_once(self, keys: list[Any], args: list[Any], client: Any, acting: Acting) -> Any:
        desk = self._desk
        answer = self._guarded(
            keys=[*keys, *desk.last_keys(acting)],
            args=[*args, *desk.last_arguments(acting)],
            client=client,
        )
        if is_taken(answer):
            raise taken(acting)
        acting.confirmed = True
        return answer
