"""Who hears of a submission beside the broker: receivers of Celery's signals, and monitors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import signals

from nxs_tasks.submission.draft import Draft

log = logging.getLogger(__name__)


class Announcer:
    """Calls them for one app, as Celery's own sending does."""

    def __init__(self, app: Any, own_receiver: Callable[..., None]) -> None:
        self._app = app
        self._own_receiver = own_receiver

    def wanted(self) -> bool:
        """Whether anybody but the fleet is connected to a signal of publishing."""
        before = signals.before_task_publish.receivers
        if signals.after_task_publish.receivers or signals.task_sent.receivers or len(before) > 1:
            return True
        return bool(before) and before[0][1] != self._own_receiver

    def before(self, name: str, draft: Draft, queue: str) -> None:
        """Receivers may still change headers, properties and body."""
        signals.before_task_publish.send(
            sender=name,
            body=draft.body,
            exchange="",
            routing_key=queue,
            declare=[],
            headers=draft.headers,
            properties=draft.properties,
            retry_policy=dict(self._app.conf.task_publish_retry_policy),
        )

    def after(self, name: str, draft: Draft, queue: str) -> None:
        """When the broker has the message."""
        headers, body = draft.headers, draft.body
        signals.after_task_publish.send(
            sender=name, body=body, headers=headers, exchange="", routing_key=queue
        )
        if signals.task_sent.receivers:  # deprecated, and called by Celery until its version 6
            signals.task_sent.send(
                sender=name,
                task_id=headers["id"],
                task=name,
                args=body[0],
                kwargs=body[1],
                eta=headers["eta"],
                taskset=headers["group"],
            )

    def sent(self, drafts: Iterable[tuple[Draft, str]]) -> None:
        """Tell monitors of messages and their queues by `task-sent` events, if they want it.

        The messages are with the broker already, so a monitor that cannot be told is only logged.
        """
        events = list(_events(drafts))
        if not events:
            return
        conf = self._app.conf
        dispatcher = self._app.events.Dispatcher(enabled=False)
        with self._app.producer_or_acquire() as producer:
            lost = producer.connection.connection_errors + producer.connection.channel_errors
            try:
                for event in events:
                    dispatcher.publish(
                        "task-sent",
                        event,
                        producer,
                        retry=conf.task_publish_retry,
                        retry_policy=conf.task_publish_retry_policy,
                    )
            except lost as error:
                log.warning("not all of %d task-sent events are sent: %r", len(events), error)


def _events(drafts: Iterable[tuple[Draft, str]]) -> Iterator[dict[str, Any]]:
    for draft, queue in drafts:
        if draft.sent_event is not None:
            yield {**draft.sent_event, "queue": queue, "exchange": "", "routing_key": queue}
