"""Celery's own submissions (`delay`, `apply_async`, canvas, retries, beat) by way of the outbox.

All of them pass `app.amqp.send_task_message`, which makes the message and gives it to a producer.
Here that is one which encodes it as kombu does, and hands the text to the outbox: so it is there to
be spooled even if there never was a connection. A producer or a connection that the caller brought
along is left alone, and so is kombu's batch.

What is spooled counts as sent: the result has the same id. `SubmissionRejected` says that a task
was not taken in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import current_task
from kombu import Exchange, Queue
from kombu.utils.uuid import uuid

from nxs_tasks.deadline import Deadline
from nxs_tasks.errors import AlreadySubmitted, BrokerError, BrokerUnreachable, SubmissionRejected
from nxs_tasks.model.decision import Placement
from nxs_tasks.runtime import CONTROL_TASKS, Runtime
from nxs_tasks.store.keys import Wire
from nxs_tasks.store.message import UNIQUE_HEADER, age_of
from nxs_tasks.store.publisher import NO_ROOMS, Room
from nxs_tasks.store.ticket import Ticket, take
from nxs_tasks.submission.draft import Draft, level
from nxs_tasks.submission.options import refuse_early
from nxs_tasks.submission.outbox import Outbox, Receipt
from nxs_tasks.submission.outcome import SubmitOutcome
from nxs_tasks.submission.rooms import Rooms
from nxs_tasks.submission.topology import Topology

log = logging.getLogger(__name__)

#: Of the time for one message, what is asked of the broker before may take so much.
ASK_SHARE = 0.3
#: Arguments of `Producer.publish` that say how to send, and are no property of a message.
MANNERS = ("mandatory", "immediate", "timeout", "confirm_timeout", "retry", "retry_policy")


_RECEIPTS: ContextVar[list[Receipt]] = ContextVar("nxs_receipts")


@contextmanager
def told_receipts() -> Iterator[list[Receipt]]:
    """What becomes of the messages that this thread has Celery send meanwhile."""
    receipts: list[Receipt] = []
    reset = _RECEIPTS.set(receipts)
    try:
        yield receipts
    finally:
        _RECEIPTS.reset(reset)


class TaskSender:
    """`app.amqp.send_task_message` of an app with a fleet."""

    def __init__(
        self, runtime: Runtime, outbox: Outbox, placed: Callable[[str], Placement | None]
    ) -> None:
        """`placed` tells how this thread has just come to an instance's own queue."""
        self._app = runtime.app
        self.placed = placed
        self.rooms = Rooms(runtime)
        self._stock: Any = None
        self.runtime = runtime
        self.outbox = outbox
        self.topology = Topology(runtime)

    def __call__(self, producer: Any, name: str, message: Any, **options: Any) -> Any:
        """Send a message that Celery has made. Raises `SubmissionRejected`, `AlreadySubmitted`."""
        if self._stock is None:
            # Not before: Celery reads the settings for good when it makes it.
            self._stock = self._app.amqp._create_task_sender()
        if _is_from_pool(producer) and "content_type" not in options:
            producer = TaskProducer(self, producer, name)
        return self._stock(producer, name, message, **options)

    def task(self, name: str) -> Any:
        """The task that the app has under a name, or None."""
        return self._app.tasks.get(name)

    @property
    def wire(self) -> Wire:
        """What the keys of the app's queues look like."""
        return Wire.from_options(self._app.conf.broker_transport_options or {})


def _is_from_pool(producer: Any) -> bool:
    """Celery's own; one that gathers a batch is left to it."""
    gathers = getattr(getattr(producer, "_batch_local", None), "current", None) is not None
    # A pool gives what it lends a way back.
    return "release" in vars(producer) and not gathers


class TaskProducer:
    """For one message: what Celery's sender needs of a producer."""

    def __init__(self, sender: TaskSender, producer: Any, name: str) -> None:
        self._sender = sender
        self._producer = producer
        self._name = name
        self._topology = sender.topology
        self._outbox = sender.outbox

    @property
    def connection(self) -> Any:
        """The connection of Celery's producer, which is not used."""
        return self._producer.connection

    def revive(self, channel: Any) -> None:
        """Nothing: there is no channel."""

    def publish(
        self,
        body: Any,
        routing_key: str = "",
        exchange: Any = None,
        *,
        headers: dict[str, Any] | None = None,
        declare: list[Any] | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        delivery_mode: Any = None,
        **properties: Any,
    ) -> None:
        """As kombu's. Raises `SubmissionRejected`, `AlreadySubmitted`; `Stale` to a beat."""
        deadline = self._outbox.deadline()
        name = exchange.name if isinstance(exchange, Exchange) else exchange or ""
        if not headers or "task" not in headers:
            stock = {**properties, "routing_key": routing_key, "exchange": exchange}
            stock |= {"headers": headers, "declare": declare, "serializer": serializer}
            self._tell(body, {**stock, "delivery_mode": delivery_mode}, deadline)
            return
        headers = _with_own_key(headers)
        draft = Draft(
            headers=headers,
            properties=_properties_of(properties),
            body=body,
            sent_event=None,
            serializer=serializer or "json",
            compression=compression,
            delivery_mode=delivery_mode,
        )
        queues = self._queues(name, routing_key, declare or [], deadline)
        if queues is None:
            options = {"routing_key": routing_key, "exchange": exchange, "headers": headers}
            coding = {"serializer": serializer, "compression": compression}
            everything = {**properties, **options, **coding, "delivery_mode": delivery_mode}
            self._broadcast(body, everything, deadline)
        elif queues:
            self._hand_in(draft, draft.text(routing_key, uuid(), name), queues, deadline)
            self._renew_expiry(declare or [], queues, deadline)

    def _queues(
        self, exchange: str, routing_key: str, declare: list[Any], deadline: Deadline
    ) -> list[str] | None:
        """Where a message goes; None if to all that listen."""
        self._topology.declare(declare, deadline.part(ASK_SHARE))
        if not exchange:
            return [routing_key]
        try:
            return self._topology.queues_of(exchange, routing_key, deadline.part(ASK_SHARE))
        except BrokerError as error:
            if isinstance(error, BrokerUnreachable):
                self._outbox.trip(str(error))
            refusal = SubmissionRejected(
                f"{self._name} is not sent, and cannot be kept, because only the broker knows the "
                f"queues of exchange {exchange!r}: {error}"
            )
            refusal.for_now = isinstance(error, BrokerUnreachable)
            raise refusal from None

    def _hand_in(self, draft: Draft, text: str, queues: list[str], deadline: Deadline) -> None:
        ticket = take()
        tick = None if ticket is None else ticket.tick
        priority = level(draft.properties.get("priority"))
        keys = [self._sender.wire.list_of(queue, priority) for queue in queues]
        headers = draft.headers
        task_id, unique = str(headers.get("id") or ""), headers.get(UNIQUE_HEADER)
        if unique:
            if len(keys) > 1:
                raise SubmissionRejected(
                    f"{self._name} has a unique_key and would go into {len(keys)} queues: send it "
                    "to one queue"
                )
            age = age_of(headers)
            if not age:
                refuse_early(self._sender.task(self._name))
            send = self._outbox.send_unique
            receipt = send(keys[0], text, task_id, str(unique), deadline, age, tick)
            _count(ticket, receipt)
            if receipt.outcome is not SubmitOutcome.REJECTED and receipt.task_id != task_id:
                raise AlreadySubmitted(receipt.task_id, str(unique))
        else:
            keep = not self._name.startswith(CONTROL_TASKS)
            lists = dict.fromkeys(keys, (text,))
            rooms = self._rooms(queues, keys)
            receipt = self._outbox.send(lists, deadline, keep=keep, rooms=rooms, tick=tick)
            _count(ticket, receipt)
        _RECEIPTS.get([]).append(receipt)
        if receipt.outcome is SubmitOutcome.REJECTED:
            refusal = SubmissionRejected(f"{self._name}[{task_id}] is not sent: {receipt.reason}")
            refusal.for_now = receipt.for_now
            raise refusal

    def _rooms(self, queues: list[str], keys: list[str]) -> Mapping[str, Room]:
        placement = self._sender.placed(queues[0]) if len(queues) == 1 else None
        if placement is None:
            return NO_ROOMS
        room = self._sender.rooms.of(placement, keys[0])
        return NO_ROOMS if room is None else {keys[0]: room}

    def _broadcast(self, body: Any, options: dict[str, Any], deadline: Deadline) -> None:
        ticket = take()
        try:
            if ticket is not None:
                # Not in one step: who dies in between has not sent it, and nobody sends it twice.
                ticket.count_now()
            self._topology.publish(body, options, deadline)
        except BrokerError as error:
            refusal = SubmissionRejected(f"{self._name} is not broadcast: {error}")
            refusal.for_now = isinstance(error, BrokerUnreachable)
            raise refusal from None

    def _tell(self, body: Any, options: dict[str, Any], deadline: Deadline) -> None:
        """Publish what is no task: the event that one was sent, which may be lost."""
        try:
            self._topology.publish(body, options, deadline.part(ASK_SHARE))
        except BrokerError as error:
            log.debug("an event is lost: %s", error)

    def _renew_expiry(self, declare: list[Any], queues: list[str], deadline: Deadline) -> None:
        """A queue that expires begins anew with each message."""
        for entity in declare:
            if isinstance(entity, Queue) and entity.name in queues:
                milliseconds = _expires_ms(entity)
                if milliseconds is not None and not self._sender.runtime.breaker.open:
                    self._outbox.expire(
                        self._sender.wire.queue_keys(entity.name), milliseconds, deadline
                    )


def _count(ticket: Ticket | None, receipt: Receipt) -> None:
    if ticket is not None:
        ticket.counted = receipt.outcome is not SubmitOutcome.REJECTED


def _with_own_key(headers: dict[str, Any]) -> dict[str, Any]:
    """The same, with the unique key of the running task if that sends a later message of itself."""
    request: Any = getattr(current_task, "request", None)
    key = getattr(request, UNIQUE_HEADER, None)
    if not key or UNIQUE_HEADER in headers or headers.get("id") != request.id:
        return headers
    return {**headers, UNIQUE_HEADER: key}


def _expires_ms(queue: Any) -> int | None:
    if queue.expires is not None:
        return int(queue.expires * 1000)
    try:
        return int((queue.queue_arguments or {})["x-expires"])
    except (KeyError, TypeError, ValueError):
        return None


def _properties_of(given: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in given.items() if key not in MANNERS}
    if isinstance(kept.get("reply_to"), Queue):
        kept["reply_to"] = kept["reply_to"].name
    return kept


def install(runtime: Runtime, outbox: Outbox, placed: Callable[[str], Placement | None]) -> None:
    """Have all that Celery publishes for this app pass the outbox."""
    amqp = runtime.app.amqp
    if not isinstance(vars(amqp).get("send_task_message"), TaskSender):
        amqp.send_task_message = TaskSender(runtime, outbox, placed)
