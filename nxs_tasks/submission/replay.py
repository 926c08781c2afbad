"""Sends what the spool has kept, in order, each message once."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from uuid import uuid4

from nxs_tasks.clock import Clock
from nxs_tasks.deadline import Deadline
from nxs_tasks.errors import SpoolError
from nxs_tasks.store.line import Line, Lines, NotWritten
from nxs_tasks.store.publisher import Write
from nxs_tasks.submission.batches import MOST_ROWS, Batch, Batches
from nxs_tasks.submission.spool import Spool

log = logging.getLogger(__name__)

#: For one batch, s. Nobody waits for it.
BATCH_S = 10.0
#: So many failures in a row without a word of the server, while it takes other things: then a batch
#: is sent message by message, and a message is refused.
STRIKES_OF_MANY = 3
STRIKES_OF_ONE = 10


@dataclass(slots=True)
class Drained:
    """What one go has done. `trouble` says why it ended before the spool was empty."""

    sent: int = 0
    superseded: int = 0  # not sent: another task has their unique_key
    refused: int = 0
    trouble: str = ""
    elsewhere: bool = False  # another process drains


@dataclass(slots=True)
class _Suspicion:
    """Batches that failed without a word of the server. One of them may hold a bad message."""

    first: int = -1
    strikes: int = 0
    #: So many rows are to be sent alone.
    one_by_one: int = 0

    def falls_on(self, batch: Batch) -> bool:
        """Note a failure; whether it has come too often."""
        self.strikes = self.strikes + 1 if batch.first == self.first else 1
        self.first = batch.first
        return self.strikes >= (STRIKES_OF_MANY if len(batch.messages) > 1 else STRIKES_OF_ONE)


class Replay:
    """Drains the spool of one machine to one broker. One go at a time in each process."""

    def __init__(self, spool: Spool, lines: Lines, broker: str, clock: Clock) -> None:
        self._spool = spool
        self.batches = Batches(spool, broker, uuid4().hex, clock)
        self._lines = lines
        self._suspicion = _Suspicion()
        self._lock = threading.Lock()

    def drain(self) -> Drained:
        """Send until nothing waits, or the broker does not take it. Raises `SpoolError`."""
        drained = Drained()
        with self._lock:
            if not self.batches.acquire():
                drained.elsewhere = True
                return drained
            try:
                while self._step(drained):
                    pass
                if (drained.sent or drained.superseded) and not self.batches.waiting():
                    self._spool.forget()
            finally:
                self.batches.resign()
        if drained.sent:
            log.warning("%d kept task(s) were sent", drained.sent)
        return drained

    def _step(self, drained: Drained) -> bool:
        """One doubt or one batch; False when it is over."""
        try:
            if self._settled_a_doubt(drained):
                return True
            suspicion = self._suspicion
            batch = self.batches.take(1 if suspicion.one_by_one else MOST_ROWS)
            if batch is None:
                return False
            suspicion.one_by_one = max(0, suspicion.one_by_one - 1)
            self._try(batch, drained)
        except NotWritten as failure:
            drained.trouble = str(failure)
            return False
        return True

    def _settled_a_doubt(self, drained: Drained) -> bool:
        doubt = self.batches.doubt()
        if doubt is None:
            return False
        accepted = not self._is_void(Write(doubt.producer, doubt.number, {}))
        drained.sent += self.batches.settle(doubt, accepted=accepted)
        return True

    def _try(self, batch: Batch, drained: Drained) -> None:
        """Send a batch, or find out what is wrong with it. Raises `NotWritten`."""
        try:
            with self._lines.line() as line:
                taken_in = self._send(line, batch)
        except NotWritten as failure:
            # A server that ends the connection each time may have been given too much.
            bad = failure.refused or (failure.maybe and self._suspicion.falls_on(batch))
            if not bad:
                raise
            # What may have arrived stays in doubt: that is settled first, and it comes again.
            if len(batch.messages) > 1:
                self._suspicion.one_by_one = len(batch.messages)
            elif not failure.maybe or self._is_void(Write(batch.producer, 1, {})):
                self.batches.refuse(batch, str(failure))
                drained.refused += 1
                log.error("a kept task is refused and stays in the spool: %s", failure)
        else:
            done = self.batches.sent(batch)
            drained.sent += done if taken_in else 0
            drained.superseded += 0 if taken_in else done

    def _is_void(self, write: Write) -> bool:
        with self._lines.line() as line:
            return line.is_void(write, Deadline(BATCH_S))

    def _send(self, line: Line, batch: Batch) -> bool:
        """Whether the broker has it now: not if another task has its unique key."""
        write = Write(batch.producer, 1, {batch.list: batch.messages})
        if not batch.unique_key:
            line.publish(write, Deadline(BATCH_S))
            return True
        owner = line.publish_unique(write, batch.task_id, batch.unique_key, Deadline(BATCH_S))
        if owner != batch.task_id:
            log.warning(
                "task %s is not sent: task %s has its unique_key %r",
                batch.task_id,
                owner,
                batch.unique_key,
            )
        return owner == batch.task_id


def say_left(spool: Spool, batches: Batches) -> None:
    """Tell, when a process ends, what it leaves behind."""
    try:
        waiting = batches.waiting()
    except SpoolError as error:
        log.warning("%s", error)
        return
    if waiting:
        log.warning(
            "%d task(s) wait in %s for the broker: a worker of the fleet on this machine sends "
            "them, or `nxs spool drain`",
            waiting,
            spool.path,
        )
