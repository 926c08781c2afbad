"""Where every message leaves this process: to the broker within a deadline, or into the spool.

One outbox for each app in a process. The first message that the broker does not confirm in time
opens the breaker: from then on messages go into the spool at once. A thread tries the broker until
it takes something again, closes the breaker, and sends what was kept; it ends when nothing waits.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nxs_tasks.deadline import Deadline
from nxs_tasks.errors import SpoolError
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.connect import place_of_url
from nxs_tasks.store.line import Lines, NotWritten
from nxs_tasks.store.publisher import NO_ROOMS, Room, Write
from nxs_tasks.store.tick import Tick
from nxs_tasks.submission.batches import LEASE_S
from nxs_tasks.submission.outcome import SubmitOutcome
from nxs_tasks.submission.replay import Drained, Replay, say_left
from nxs_tasks.submission.shelter import shelter
from nxs_tasks.submission.spool import Kept, Spool

log = logging.getLogger(__name__)

#: Of `submit_deadline`: the rest is for the look at the fleet that comes before.
SHARE = 0.8
#: Of this share the broker may take so much; the rest is for the disk.
SEND_SHARE = 0.75
#: The disk is given at least so long, s: better a late answer than a task that is not kept.
LEAST_KEEP_S = 1.0
#: Between two tries of a broker that is away, s.
PROBE_S = 0.5
#: One try of it, s.
PROBE_TIMEOUT_S = 2.0
#: Where `Fleet(app)` leaves it on the app.
ATTRIBUTE = "nxs_outbox"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of messages that were handed in, and why.

    `task_id` is told for a unique key: the id of the task that has it. `for_now` says of what was
    rejected that the same may be taken later.
    """

    outcome: SubmitOutcome
    reason: str = ""
    task_id: str = ""
    for_now: bool = False


ACCEPTED = Receipt(SubmitOutcome.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Handed:
    """Messages of one caller, and how long it waits."""

    lists: Mapping[str, Sequence[str]]
    deadline: Deadline
    keep: bool = True
    task_id: str = ""
    unique_key: str = ""

    def receipt(self, outcome: SubmitOutcome, owner: str, why: str = "") -> Receipt:
        """What the caller is told; `owner` is the task that has the unique key."""
        if owner != self.task_id:
            why = f"task {owner} has the unique_key {self.unique_key!r}, and is not done yet"
        return Receipt(outcome, why, owner)


class Outbox:
    """Hands messages in. Safe to use in any thread, and after a fork."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._breaker = runtime.breaker
        self._share_s = SHARE * settings.submit_deadline
        path = settings.state_path / f"spool-{settings.fleet}.db"
        self.spool = Spool(path, settings.spool_limit)
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        runtime.upkeep.append(self.start_if_any)

    def _reset(self) -> None:
        self._breaker.heal()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lines: Lines | None = None
        self._replay: Replay | None = None
        self._has_kept = False
        self._closed = threading.Event()

    def close(self) -> None:
        """End the thread and the connections; what is kept stays on the disk."""
        self._closed.set()
        thread, lines = self._thread, self._lines
        if thread is not None:
            thread.join(2 * PROBE_TIMEOUT_S)
        if lines is not None:
            lines.close()
        self.spool.close()

    # handing in

    def deadline(self) -> Deadline:
        """Within which one message is handed in."""
        return Deadline(self._share_s)

    def send(
        self,
        lists: Mapping[str, Sequence[str]],
        deadline: Deadline | None = None,
        *,
        keep: bool = True,
        rooms: Mapping[str, Room] = NO_ROOMS,
        tick: Tick | None = None,
    ) -> Receipt:
        """Hand in messages for lists (their full keys), all or none, first to be taken first.

        What finds no room in a list of `rooms` any more goes to the other one. Without `keep` they
        are rejected where they would be spooled. Never raises for a broker or a disk that cannot
        take them. With `tick` they are a run of the schedule, which is never spooled: raises
        `NotLeading`, `AnotherRun`.
        """
        keep = keep and tick is None
        deadline = deadline or self.deadline()
        lines = self._ready()
        if not self._breaker.lets_through():
            return self._keep(Handed(lists, deadline, keep=keep), self._breaker.why)
        try:
            with lines.line() as line:
                line.publish(line.next_write(lists, rooms), deadline.part(SEND_SHARE), tick)
        except NotWritten as failure:
            return self._take_over(Handed(lists, deadline, keep=keep), failure)
        self._heal()
        return ACCEPTED

    def send_unique(
        self,
        list_key: str,
        message: str,
        task_id: str,
        unique_key: str,
        deadline: Deadline | None = None,
        age: int = 0,
        tick: Tick | None = None,
    ) -> Receipt:
        """Hand in one message if no other task has its key; the receipt says who has it.

        One of an age above 0 is a later message of a task that has its key already. If it must be
        spooled it goes on without, because by then another may have it. `tick` as for `send`.
        """
        lists = {list_key: (message,)}
        handed = Handed(
            lists,
            deadline or self.deadline(),
            keep=tick is None,
            task_id=task_id,
            unique_key="" if age else unique_key,
        )
        lines = self._ready()
        if not self._breaker.lets_through():
            return self._keep(handed, self._breaker.why)
        try:
            with lines.line() as line:
                owner = line.publish_unique(
                    line.next_write(lists),
                    task_id,
                    unique_key,
                    handed.deadline.part(SEND_SHARE),
                    age,
                    tick,
                )
        except NotWritten as failure:
            return self._take_over(handed, failure)
        self._heal()
        return handed.receipt(SubmitOutcome.ACCEPTED, owner)

    def expire(self, keys: Sequence[str], milliseconds: int, deadline: Deadline) -> None:
        """Have lists expire so long from now, if the broker answers."""
        try:
            with self._ready().line() as line:
                line.expire(keys, milliseconds, deadline)
        except NotWritten as failure:
            log.debug("lists do not expire anew: %s", failure)

    def keep(self, lists: Mapping[str, Sequence[str]], why: str) -> Receipt:
        """Spool messages without a try: one that came before them was not taken."""
        return self._keep(Handed(lists, self.deadline()), why)

    def _take_over(self, handed: Handed, failure: NotWritten) -> Receipt:
        if failure.refused:
            return Receipt(SubmitOutcome.REJECTED, str(failure))
        self.trip(str(failure))
        return self._keep(handed, str(failure), failure.write if failure.maybe else None)

    def _keep(self, handed: Handed, why: str, write: Write | None = None) -> Receipt:
        doubt = "" if write is None else "; it may have been written all the same"
        if not handed.keep:
            return Receipt(SubmitOutcome.REJECTED, f"{why}{doubt}", for_now=True)
        try:
            deadline = Deadline(max(LEAST_KEEP_S, handed.deadline.remaining()))
            owner = self.spool.keep(list(self._rows(handed, why, write)), deadline)
        except SpoolError as error:
            return Receipt(SubmitOutcome.REJECTED, f"{why}, and {error}{doubt}")
        self._has_kept = True
        self.start()
        return handed.receipt(SubmitOutcome.SPOOLED, owner, why)

    def _rows(self, handed: Handed, why: str, write: Write | None) -> Iterator[Kept]:
        runtime = self._runtime
        producer, number = ("", 0) if write is None else (write.producer, write.number)
        at, broker = runtime.clock.now(), self.broker
        for key, messages in shelter(runtime, handed.lists):
            for message in messages:
                yield Kept(
                    broker=broker,
                    at=at,
                    why=why,
                    list=key,
                    message=message,
                    task_id=handed.task_id,
                    unique_key=handed.unique_key,
                    producer=producer,
                    number=number,
                )

    @property
    def broker(self) -> str:
        """For whom messages of this process are kept: the address, without user and password."""
        return place_of_url(self._runtime.broker_url)

    # the broker's absence

    def trip(self, why: str) -> None:
        """Hand nothing to the broker until it is found to take something."""
        if self._breaker.trip(why):
            log.warning(
                "tasks are kept in %s until the broker takes them: %s", self.spool.path, why
            )
        self.start()

    def start(self) -> None:
        """Have the thread that tries the broker and sends what is kept. Returns at once."""
        with self._lock:
            self._wake.set()
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, name="nxs-outbox", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("kept tasks are not sent by this process: %s", error)
            else:
                self._thread = thread

    def start_if_any(self) -> None:
        """The same if anything waits, whoever has left it. A look at the disk.

        So a worker sends what a process has left that submits nothing any more.
        """
        if self._thread is not None or not self.spool.exists():
            return
        try:
            if self.replay().batches.waiting():
                self.start()
        except SpoolError as error:
            log.error("what waits in the spool is not sent: %s", error)

    def drain(self) -> Drained:
        """Send what is kept, now. Raises `SpoolError`."""
        return self.replay().drain()

    def replay(self) -> Replay:
        """What sends the spool to this process's broker."""
        lines = self._opened()
        with self._lock:
            if self._replay is None:
                clock = self._runtime.clock
                self._replay = Replay(self.spool, lines, self.broker, clock)
            return self._replay

    def _ready(self) -> Lines:
        """The lines, for a process that submits: then what an earlier one has left is sent too."""
        lines = self._lines
        if lines is None:
            lines = self._opened()
            if self.spool.exists():
                self.start()
        return lines

    def _opened(self) -> Lines:
        with self._lock:
            if self._lines is None:
                self._lines = Lines(self._runtime.new_store())
                atexit.register(self._at_exit, os.getpid())
            return self._lines

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.clear()
            pause = PROBE_S
            try:
                if not self._breaker.open or self._probe():
                    pause = self._go()
            except SpoolError as error:
                log.error("kept tasks are not sent: %s", error)
                pause = LEASE_S
            except Exception:
                log.exception("kept tasks are not sent, and tried again")
                pause = LEASE_S
            if pause:
                # Not woken by what is kept meanwhile: each message would be a try of the broker.
                self._closed.wait(pause)
            elif self._ended():
                return

    def _go(self) -> float:
        """Drain; the pause until the next go, 0 if nothing waits any more."""
        if not self.spool.exists():
            return 0.0
        drained = self.drain()
        if drained.trouble and not self._probe():
            self.trip(drained.trouble)
        if drained.elsewhere:
            return LEASE_S / 5
        return PROBE_S if drained.trouble or self.replay().batches.waiting() else 0.0

    def _probe(self) -> bool:
        """Whether the broker takes a write that writes nothing; closes the breaker then."""
        try:
            with self._opened().line() as line:
                line.publish(line.next_write({}), Deadline(PROBE_TIMEOUT_S))
        except NotWritten:
            self._breaker.note_try()
            return False
        self._heal()
        return True

    def _heal(self) -> None:
        if self._breaker.open and self._breaker.heal():
            log.warning("the broker takes tasks again")

    def _ended(self) -> bool:
        with self._lock:
            if self._wake.is_set() or self._breaker.open:
                return False
            self._thread = None
            return True

    def _at_exit(self, pid: int) -> None:
        ours = pid == os.getpid() and not self._closed.is_set()
        if self._has_kept and ours and self.spool.exists():
            say_left(self.spool, self.replay().batches)


def outbox_of(app: object) -> Outbox:
    """The outbox that `Fleet(app)` left on the app."""
    found = getattr(app, ATTRIBUTE, None)
    if not isinstance(found, Outbox):
        raise TypeError("the app has no outbox: add `Fleet(app)` to it")
    return found
