"""Writes the messages of one call, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kombu.exceptions import EncodeError

from nxs_tasks.store.publisher import NO_ROOMS, Room
from nxs_tasks.submission.announce import Announcer
from nxs_tasks.submission.call import Call
from nxs_tasks.submission.destination import Destination, Destinations
from nxs_tasks.submission.encoder import new_id, new_ids
from nxs_tasks.submission.messages import Carefully, Plainly
from nxs_tasks.submission.options import unique_key
from nxs_tasks.submission.outbox import Outbox
from nxs_tasks.submission.outcome import Fate, Submission, SubmitOutcome
from nxs_tasks.submission.stream import Stream

ACCEPTED = SubmitOutcome.ACCEPTED
#: Messages in one write: more gain nothing, and the server's other clients wait the longer.
BATCH = 500
#: And so much text: a message may be large.
BATCH_CHARACTERS = 1_000_000


class Batch:
    """The next write: messages by list, and whose they are."""

    __slots__ = ("characters", "lists", "members", "rooms")

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {}
        self.rooms: dict[str, Room] = {}
        self.members: list[tuple[int, Destination]] = []
        self.characters = 0

    def add(self, number: int, to: Destination, key: str, text: str) -> bool:
        """Append the message of a task; True if the batch should be written before the next."""
        self.lists.setdefault(key, []).append(text)
        if to.room is not None and key == to.key:
            self.rooms[key] = to.room
        self.members.append((number, to))
        self.characters += len(text)
        return len(self.members) >= BATCH or self.characters >= BATCH_CHARACTERS


class Writer:
    """Writes the messages of calls."""

    def __init__(
        self, app: Any, outbox: Outbox, destinations: Destinations, announcer: Announcer
    ) -> None:
        self._app = app
        self._outbox = outbox
        self._destinations = destinations
        self._announcer = announcer

    def write_one(self, call: Call, id_: str, args: Any, kwargs: Mapping[str, Any]) -> Submission:
        """What became of a task. Raises kombu's `EncodeError`."""
        to = self._destinations.of_one(call.plan, args, kwargs, id_)
        texts = self._texts(call, kwargs, worth=call.plan.kept)
        key, text = texts.message(args, id_, new_id(), to)
        unique = call.options and unique_key(call.options)
        if unique:
            receipt = self._outbox.send_unique(key, text, id_, unique)
        else:
            rooms = {key: to.room} if to.room is not None and key == to.key else NO_ROOMS
            receipt = self._outbox.send({key: (text,)}, rooms=rooms)
        if receipt.task_id not in ("", id_):
            return Submission(receipt.task_id, receipt.outcome, receipt.reason, "")
        if isinstance(texts, Carefully):
            texts.tell(receipt.outcome)
        if receipt.outcome is ACCEPTED:
            return Submission(id_, ACCEPTED, to.why, to.queue)
        return Submission(id_, receipt.outcome, receipt.reason, to.queue)

    def write(
        self, call: Call, stream: Stream, ids: Sequence[str], args_list: Sequence[Any]
    ) -> list[Fate]:
        """What became of each task; one whose arguments cannot be encoded is rejected."""
        texts = self._texts(call, None, worth=True)
        fates: list[Any] = [None] * len(ids)
        batch = Batch()
        where, tags = self._destinations.of(call.plan, args_list, ids), new_ids(len(ids))
        tasks = zip(args_list, ids, tags, where, strict=True)
        for n, (args, id_, tag, to) in enumerate(tasks):
            try:
                key, text = texts.message(args, id_, tag, to)
            except EncodeError as unfit:
                fates[n] = Fate(SubmitOutcome.REJECTED, cannot_be_encoded(unfit), to.queue)
                continue
            if batch.add(n, to, key, text):
                _send(stream, texts, batch, fates)
                batch = Batch()
        if batch.members:
            _send(stream, texts, batch, fates)
        return fates

    def _texts(self, call: Call, kwargs: Any, *, worth: bool) -> Plainly | Carefully:
        """`worth`: whether more than one message will come of an encoder."""
        plan = call.plan
        if not (worth and plan.plain) or plan.announced or self._announcer.wanted():
            return Carefully(self._app, call, kwargs, self._announcer, self._destinations)
        found: Plainly | None = call.plainly
        if kwargs or found is None or not found.is_for(self._app.thread_oid):
            found = Plainly(self._app, call, kwargs)
            if not kwargs:
                call.plainly = found
        return found


def cannot_be_encoded(error: EncodeError) -> str:
    """Why a task of a batch is rejected."""
    return f"its arguments cannot be encoded: {error}"


def _send(stream: Stream, texts: Plainly | Carefully, batch: Batch, fates: list[Any]) -> None:
    receipt = stream.send(batch.lists, batch.rooms)
    outcome, reason = receipt.outcome, receipt.reason
    if isinstance(texts, Carefully):
        texts.tell(outcome)
    last: Destination | None = None
    for n, to in batch.members:
        if to is not last:
            last = to
            fate = Fate(outcome, to.why if outcome is ACCEPTED else reason, to.queue)
        fates[n] = fate
