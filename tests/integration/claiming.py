"""One process that takes messages, drained by hand: the channel of a fleet, without Celery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

from kombu import Consumer, Exchange, Queue

from nxs_tasks.clock import SYSTEM
from nxs_tasks.model.shelf import DELAYED, Shelved
from nxs_tasks.store import FleetStore, Keys, Wire, connect
from nxs_tasks.store.message import unwrap
from nxs_tasks.store.shelves import entry_text
from nxs_tasks.transport.redis import TENURE_OPTION, Connection
from nxs_tasks.transport.tenure import Claimed, Tenure
from tests.conftest import add_instance

OWN = "nxs.default/w1@t"
#: Longest wait for something that will come. A deadline, not an expectation.
PATIENCE_S = 20.0
#: One turn of a loop that waits for a condition, s.
TURN_S = 0.05


def a_message(
    number: int | str, *, priority: int = 0, queue: str = "celery", **headers: Any
) -> str:
    """What a stock producer writes, with its task's number as id."""
    return json.dumps(
        {
            "body": "W1tdLCB7fSwgbnVsbF0=",  # [[], {}, null]
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"id": str(number), "task": "shop.add", **headers},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": f"of-the-producer-{number}",
            },
        }
    )


def a_queue(name: str) -> Queue:
    """A queue as a worker of a fleet consumes it: nothing is declared."""
    return Queue(name, Exchange(""), routing_key=name, no_declare=True)


def a_store(url: str, options: Mapping[str, Any] | None = None) -> FleetStore:
    return FleetStore(
        connect(url), Keys("default"), Wire.from_options(options or {}), "celery", url
    )


class Taker:
    """Consumes queues as the instance w1@t does; what comes is in `got`, not acknowledged."""

    def __init__(
        self,
        url: str,
        queues: Iterable[str] = (OWN, "celery"),
        *,
        gate: Callable[[Claimed], bool] = lambda claimed: True,
        options: Mapping[str, Any] | None = None,
        consume_at: str | None = None,
    ) -> None:
        self.store = a_store(url, options)
        self.epoch = add_instance(self.store, "w1@t")
        self.displaced = 0
        self.tenure = Tenure(self.store, "w1@t", self.epoch, gate=gate)
        self.tenure.on_displaced = self._count_displaced
        self.got: list[Any] = []
        self._queues = list(queues)
        self._at = consume_at or url
        self._options = {
            "queue_order_strategy": "nxs_tasks.worker.order:OwnFirst",
            "client_name": self.store.keys.client_name("w1@t", self.epoch),
            "unacked_key": self.store.keys.inflight("w1@t", self.epoch),
            "unacked_index_key": self.store.keys.inflight_index("w1@t", self.epoch),
            TENURE_OPTION: self.tenure,
            **(options or {}),
        }
        self.connect()

    def connect(self) -> None:
        """Anew, as Celery does when its connection is lost."""
        self.connection = Connection(self._at, transport_options=self._options)
        self.channel = self.connection.channel()
        queues = [a_queue(name) for name in self._queues]
        self.consumer = Consumer(self.channel, queues, on_message=self.got.append)
        self.consumer.consume()

    def drain(self, seconds: float) -> bool:
        """One wait for events; False if there were none."""
        try:
            self.connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def until(self, condition: Callable[[], bool], what: str, turn_s: float = TURN_S) -> None:
        """Drain until a condition holds."""
        end = SYSTEM.monotonic() + PATIENCE_S
        while not condition():
            assert SYSTEM.monotonic() < end, f"not within {PATIENCE_S} s: {what}; got {self.ids()}"
            self.drain(turn_s)

    def until_got(self, count: int) -> list[str]:
        """Drain until so many messages have come; the ids of all."""
        self.until(lambda: len(self.got) >= count, f"{count} messages")
        return self.ids()

    def until_armed(self) -> None:
        """Drain until it has asked, got nothing, and waits to be told."""
        self.until(lambda: self.channel.waits_s() is not None, "it to wait for a notice", 0.0)

    def ask(self) -> None:
        """Send the question, and leave its answer unread."""
        self.channel._waits_until = self.channel._in_poll = None
        self.connection.transport.cycle.on_poll_start()
        assert self.channel._in_poll, "a question is on its way"

    def ids(self) -> list[str]:
        return [message.headers["id"] for message in self.got]

    def held(self) -> dict[str, tuple[str, str]]:
        """By the broker's account: token to the message as it was, and its queue."""
        key = self.store.wire.prefix + self.store.keys.inflight("w1@t", self.tenure.epoch)
        entries = cast("dict[str, str]", self.store.client.hgetall(key))
        return {token: unwrap(entry) for token, entry in entries.items()}

    def held_ids(self) -> set[str]:
        return {json.loads(raw)["headers"]["id"] for raw, _ in self.held().values()}

    def waiting(self, queue: str = "celery") -> int:
        keys = self.store.wire.queue_keys(queue)
        return sum(int(self.store.client.llen(key)) for key in keys)

    def asks(self) -> int:
        """How often the claim script was called by hash, since the server counts."""
        stats = self.store.client.info("commandstats").get("cmdstat_evalsha", {})
        return int(stats.get("calls", 0))

    def connection_id(self) -> int | None:
        """The server's number of the connection that takes messages; None while there is none."""
        sock = getattr(self.channel.client.connection, "_sock", None)
        if sock is None:
            return None
        address = "{}:{}".format(*sock.getsockname())
        clients = self.store.client.client_list()
        return next((int(c["id"]) for c in clients if c["addr"] == address), None)

    def close(self) -> None:
        with suppress(OSError):
            self.connection.close()

    def _count_displaced(self) -> None:
        self.displaced += 1


def shelve(taker: Taker, id_: str, in_s: float) -> None:
    """Put a message on the shelf `delayed`, and remember when it is due."""
    keys, client, due = taker.store.keys, taker.store.client, taker.store.now() + in_s
    entry = Shelved(
        id=f"entry-{id_}",
        at=due,
        list=taker.store.wire.list_of("celery", 0),
        message=a_message(id_),
        reason="waits for its time",
    )
    with client.pipeline(transaction=True) as pipe:
        pipe.hset(keys.shelf(DELAYED), entry.id, entry_text(entry))
        pipe.zadd(keys.shelf_index(DELAYED), {entry.id: due})
        pipe.set("due", repr(due))
        pipe.execute()


#: The fixture `make_taker(url, **options)`.
MakeTaker = Callable[..., Taker]
