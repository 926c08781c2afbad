"""The texts of the messages of one call: plainly by the encoder, or carefully by Celery's function.

Both give for each task the key of a list and a text.
"""

from __future__ import annotations

import os
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from celery.utils.nodenames import anon_nodename

from nxs_tasks.store.message import PLACED_HEADER, placed_header
from nxs_tasks.submission.announce import Announcer
from nxs_tasks.submission.call import Call
from nxs_tasks.submission.destination import Destination, Destinations
from nxs_tasks.submission.draft import Draft, compose, level, milliseconds
from nxs_tasks.submission.encoder import NULL, to_json
from nxs_tasks.submission.outcome import SubmitOutcome
from nxs_tasks.submission.times import NONE

#: No parent, no eta, no time of expiry.
NOTHING = (NULL,) * 4
#: What `apply_async` does not hand on to `shadow_name`.
NOT_TOLD = frozenset({"link", "link_error", "shadow", "task_id"})


class Plainly:
    """Where everything but arguments, ids and places is the same in all messages."""

    __slots__ = ("_kwargs", "_last", "_pid", "_root", "_text", "_thread_oid")

    def __init__(self, app: Any, call: Call, kwargs: Any) -> None:
        due = call.times
        self._text = call.plan.encoder(app, expiring=due.expires_s is not None).text
        self._kwargs = kwargs
        self._root = None if call.root is None else piece(call.root)
        self._pid, self._thread_oid = os.getpid(), app.thread_oid
        origin = quoted(anon_nodename())
        self._last = (*_constant(call), origin, quoted(self._thread_oid))

    def is_for(self, thread_oid: str) -> bool:
        """Whether it was made by this thread of this process: its messages name them."""
        return self._thread_oid == thread_oid and self._pid == os.getpid()

    def message(self, args: Any, id_: str, tag: str, to: Destination) -> tuple[str, str]:
        """Raises kombu's `EncodeError`."""
        own = piece(id_)
        others = (to.queue_json, to.placed_json, self._root or own, *self._last)
        return to.key, self._text(args, self._kwargs, own, f'"{tag}"', *others)


def _constant(call: Call) -> tuple[str, str, str, str]:
    due = call.times
    if due is NONE and call.parent is None:
        return NOTHING
    expiration = NULL if due.expires_s is None else quoted(milliseconds(due.expires_s))
    return piece(call.parent), piece(due.eta), piece(due.expires), expiration


class Carefully:
    """Where others want to hear of each message, or it is not plain JSON."""

    def __init__(
        self, app: Any, call: Call, kwargs: Any, announcer: Announcer, destinations: Destinations
    ) -> None:
        self._app = app
        self._call = call
        self._kwargs = kwargs
        self._announcer = announcer
        self._destinations = destinations
        times = {"eta": call.times.eta, "expires": call.times.expires}
        lineage = {"root_id": call.root, "parent_id": call.parent}
        self._options = {**call.plan.options, **lineage, **times}
        self._drafts: list[tuple[Draft, str]] = []

    def message(self, args: Any, id_: str, tag: str, to: Destination) -> tuple[str, str]:
        """Raises kombu's `EncodeError`."""
        plan = self._call.plan
        draft = compose(
            self._app,
            plan.target.name,
            args,
            self._kwargs,
            id_,
            self._named(args),
            expiration=self._call.times.expires_s,
            sent_event=plan.announced,
        )
        if to.placement is not None:
            draft.headers[PLACED_HEADER] = placed_header(to.placement, to.at)
        self._announcer.before(plan.target.name, draft, to.queue)
        key = self._destinations.key(to.queue, level(draft.properties.get("priority")))
        text = draft.text(to.queue, tag)
        self._drafts.append((draft, to.queue))
        return key, text

    def _named(self, args: Any) -> dict[str, Any]:
        """The options, with the name that the task has for these arguments in logs."""
        task = self._call.plan.target.task
        if task is None or self._options.get("shadow"):
            return self._options
        told = {k: v for k, v in self._call.options.items() if k not in NOT_TOLD}
        shadow = task.shadow_name(args, self._kwargs, told)
        return {**self._options, "shadow": shadow}

    def tell(self, outcome: SubmitOutcome) -> None:
        """Tell of the messages since the last time if the broker has them."""
        drafts, self._drafts = self._drafts, []
        if outcome is not SubmitOutcome.ACCEPTED:
            return
        for draft, queue in drafts:
            self._announcer.after(self._call.plan.target.name, draft, queue)
        self._announcer.sent(drafts)


def piece(value: Any) -> str:
    """A value as JSON."""
    if value is None:
        return NULL
    return quoted(value) if type(value) is str else to_json(value)
