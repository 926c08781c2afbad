"""Every result that is stored, also one that another overwrites later."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from typing import Any, cast

from chaos.server import BrokerServer

#: Celery's Redis backend stores a result under this, and tells a channel of the same name.
PREFIX = "celery-task-meta-"


class Commits:
    """Listens while it is entered."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        self._client = server.client()
        self._told: dict[str, set[str]] = defaultdict(set)
        self._over = threading.Event()
        self._pubsub: Any = cast("Any", self._client).pubsub(ignore_subscribe_messages=True)
        self._thread = threading.Thread(target=self._listen, name="commits", daemon=True)

    def __enter__(self) -> Commits:
        self._pubsub.psubscribe(f"{PREFIX}*")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._pubsub.close()
        self._client.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            message = self._pubsub.get_message(timeout=0.1)
            if message is not None:
                self._note(message["data"])

    def _note(self, text: str) -> None:
        told = json.loads(text)
        self._told[told["task_id"]].add(str(told["result"]))

    def of(self, task: str) -> set[str]:
        """All results that were ever stored for a task since the listening began."""
        last = self.last(task)
        return self._told[task] | ({last} if last else set())

    def last(self, task: str) -> str:
        """The result that is stored now, "" if there is none."""
        text = self._client.get(PREFIX + task)
        return "" if text is None else str(json.loads(str(text))["result"])
