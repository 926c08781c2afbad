"""How a worker of a fleet takes messages: a kombu channel that pops and registers in one step.

kombu's channel sends BRPOP, and writes what came into its `unacked` hash afterwards. A process that
is killed in between loses the message (measured elsewhere: 0.14 to 0.20 for each SIGKILL). Two ways
out were weighed. A ledger, written beside each publish and reconciled, does not see what a stock
producer sends, and doubles the writes. So the pop is a script (`claim.lua`) that also registers,
and the keys stay kombu's own.

A script cannot wait. BRPOP's waiting is replaced by CLIENT TRACKING: the script that finds nothing
has read the lists, so the server tells this connection (RESP3) when one of them changes, and the
worker asks again. The notice is only a hint: without it (refused by a proxy or an ACL) the worker
asks every `POLL_S`. One notice goes to every idle worker, so a worker that came too late several
times in a row waits a random moment before it asks again.

To kombu's poller it looks like BRPOP: `_in_poll` is the connection while an answer or a notice is
awaited.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha1
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from nxs_tasks.clock import SYSTEM
from nxs_tasks.errors import BrokerError
from nxs_tasks.store import scripts
from nxs_tasks.store.claim import Wishes, keys_and_arguments
from nxs_tasks.store.connect import forgot_script, out_of_memory
from nxs_tasks.store.message import LOST_HEADER, MOVED_HEADER
from nxs_tasks.transport.ahead import AheadMixin
from nxs_tasks.transport.qos import ClaimingQoS
from nxs_tasks.transport.tenure import Claimed, Ending, Tenure, at_once

log = logging.getLogger(__name__)

#: An idle worker asks so often if nobody tells it anything, s; kombu's BRPOP has the same time-out.
ASK_AGAIN_S = 1.0
#: And so often where the server sends no notices, s.
POLL_S = 0.1
#: Between two asks of a process that has lost its place, s.
DISPLACED_S = 1.0
#: Between two looks whether what runs leaves room for more, s.
NO_ROOM_S = 0.05
#: After so many notices in a row that came too late, wait a random moment, up to this, s.
FUTILE = 3
SPREAD_S = 0.05

SCRIPT = scripts.text("claim")
#: The same for a server that may use no more memory.
SPARING_SCRIPT = scripts.sparing(SCRIPT)


class ClaimingMixin(AheadMixin):
    """For kombu's Redis channels. Without a tenure (`nxs_tenure`) they are as kombu made them."""

    QoS = ClaimingQoS
    nxs_tenure: Tenure | None = None

    client: Any
    connection: Any
    qos: Any
    _in_poll: Any
    _waits_until: float | None = None  # a notice is awaited, not an answer
    _tracked: Any = None  # the socket on which notices are on
    _claims = False  # consumes something that is acknowledged
    _asked = False  # what was sent last is the script, and not kombu's BRPOP
    _has_notices = False
    _hears_intents = False  # and is told which key has changed
    _intents_changed = True  # since the last claim, as far as is known
    _script = SCRIPT
    _script_sent = False
    _named = -1  # the epoch that the connection's name has
    _futile = 0
    _token = ""

    def _get_pool(self, asynchronous: bool = False) -> Any:
        pool = super()._get_pool(asynchronous=asynchronous)  # type: ignore[misc]
        if asynchronous and self.nxs_tenure is not None:
            # Notices come as pushes, which the older protocol does not have.
            pool.connection_kwargs["protocol"] = 3
        return pool

    # asking

    def _brpop_start(self, timeout: float | None = None) -> None:
        tenure = self.nxs_tenure
        self._asked = tenure is not None and self._claims
        if tenure is None or not self._asked:
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        if not self._queues():
            return
        self._turn_notices_on(self.client.connection)
        if self._slot_came():
            return
        if not self._asks_for_more(tenure):
            if self._has_begun:
                # The pool may have looked already whether it has something to write.
                self.connection.wake()
            if self.qos.can_consume():
                self._wait(NO_ROOM_S)
            return
        self._send_claim(tenure)
        self._in_poll, self._waits_until = self.client.connection, None
        self._brpop_sent_at = SYSTEM.monotonic()

    def _send_claim(self, tenure: Tenure, ahead: int = 0) -> None:
        connection, queues = self.client.connection, self._queues()
        token = tenure.next_token()
        self._token = str(token)
        self._turn_name(connection, token.epoch)
        self._intents_changed = not self._hears_intents
        arguments = self._arguments(tenure, token.epoch, queues, tenure.wishes(ahead))
        connection.send_command(*self._call(), *arguments)

    def _queues(self) -> list[str]:
        active = len(self.active_queues)  # type: ignore[attr-defined]
        return list(self._queue_cycle.consume(active))  # type: ignore[attr-defined]

    def _call(self) -> tuple[str, str]:
        """The script by its name, if the server has seen it on this connection."""
        if self._script_sent:
            return "EVALSHA", sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._script_sent = True
        return "EVAL", self._script

    def _arguments(
        self, tenure: Tenure, epoch: int, queues: list[str], wishes: Wishes
    ) -> list[Any]:
        keys, arguments = keys_and_arguments(
            tenure.store, tenure.instance, epoch, self._token, queues, wishes
        )
        return [len(keys), *keys, *arguments]

    def _turn_name(self, connection: Any, epoch: int) -> None:
        """Give the connection the name of a new epoch: by it the fleet sees that we live."""
        tenure = self.nxs_tenure
        if tenure is None or self._named == epoch:
            return
        name = tenure.store.keys.client_name(tenure.instance, epoch)
        connection.send_command("CLIENT", "SETNAME", name)
        connection.read_response()
        self._named = epoch

    def _turn_notices_on(self, connection: Any) -> None:
        if self._tracked is connection._sock:
            return
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
            self._has_notices = True
            self._listen_for_intents(connection)
        except self.ResponseError as error:  # type: ignore[attr-defined]
            log.warning("the server sends no notices, so this worker asks all the time: %s", error)
            self._has_notices = self._hears_intents = False
        self._tracked = connection._sock
        self._script_sent = False
        self._intents_changed = True
        self._named = -1

    def _listen_for_intents(self, connection: Any) -> None:
        tell = getattr(connection._parser, "set_invalidation_push_handler", None)
        self._hears_intents = tell is not None
        if tell is not None:
            tell(self._note_change)

    def _note_change(self, notice: list[Any]) -> None:
        tenure, changed = self.nxs_tenure, notice[1]
        if changed is None or tenure is None:  # all that it has read
            self._intents_changed = True
            return
        keys = tenure.store.keys
        wanted = {keys.cancelled(), keys.paused_tasks()}
        self._intents_changed |= not wanted.isdisjoint(map(bytes_to_str, changed))

    def waits_s(self) -> float | None:
        """For how long it goes on waiting for a notice, s; None if it awaits none."""
        if self._waits_until is None:
            return None
        return max(0.0, self._waits_until - SYSTEM.monotonic())

    def ask_again_if_due(self) -> None:
        """Stop waiting for a notice when the time is over: the next poll asks."""
        if self._waits_until is not None and SYSTEM.monotonic() >= self._waits_until:
            self._in_poll = self._waits_until = None

    def lose_connection_if_wanted(self) -> None:
        """Raises a connection error if that is wanted: Celery's consumer then connects anew."""
        tenure = self.nxs_tenure
        if tenure is not None and self._claims and tenure.lose:
            reason, tenure.lose = tenure.lose, ""
            raise ConnectionResetError(reason)

    # being answered

    def _brpop_read(self, **options: Any) -> bool:
        if self.nxs_tenure is None or not self._asked:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]
        if self._waits_until is not None:
            self.read_notices()
            raise Empty
        connection = self.client.connection
        try:
            answer = self.client.parse_response(connection, "EVAL", **options)
        except self.connection_errors:  # type: ignore[attr-defined]
            connection.disconnect()
            self._in_poll = None
            raise
        except self.ResponseError as error:  # type: ignore[attr-defined]
            if forgot_script(error):
                self._script_sent = False
                self._wait(0.0)
            elif out_of_memory(error) and self._script is SCRIPT:
                self._script, self._script_sent = SPARING_SCRIPT, False
                self._wait(0.0)
            else:
                log.error("the broker refuses to hand out work: %s", error)
                self._wait(ASK_AGAIN_S)
            raise Empty from None
        return self._take(answer, self.nxs_tenure)

    def _take(self, answer: list[Any], tenure: Tenure) -> bool:
        kind, ahead = answer[0], self._was_ahead
        self._was_ahead = False
        if kind == 1:
            self._in_poll, self._futile = None, 0
            self._flush_brpop_reauth()  # type: ignore[attr-defined]
            queue = bytes_to_str(answer[1])
            tenure.took(queue, SYSTEM.monotonic())
            if queue in self._queue_cycle.items:  # type: ignore[attr-defined]
                self._queue_cycle.rotate(queue)  # type: ignore[attr-defined]
            self._deliver_claimed(answer, tenure)
            return True
        if kind < 0:
            tenure.on_displaced()
            self._wait(DISPLACED_S)
            raise Empty
        if ahead:
            # It may have left what there is to others: asked again, now for a slot.
            self._in_poll = None
            raise Empty
        tenure.took(None, SYSTEM.monotonic())
        due_s = answer[1] / 1000 if answer[1] >= 0 else ASK_AGAIN_S
        self._wait(min(due_s, ASK_AGAIN_S if self._has_notices else POLL_S))
        # A notice that came right behind the answer has been read with it, and wakes no poll.
        self.read_notices()
        raise Empty

    def _wait(self, seconds: float) -> None:
        """Await a notice, but no longer than so."""
        self._in_poll = self.client.connection
        self._waits_until = SYSTEM.monotonic() + seconds
        self.connection.wake_in(seconds)

    def read_notices(self) -> None:
        """Read what the server told unasked; notices say only that it is worth asking again."""
        connection, told = self.client.connection, False
        try:
            while connection.can_read(timeout=0):
                connection.read_response(push_request=True)
                told = True
        except self.connection_errors:  # type: ignore[attr-defined]
            connection.disconnect()
            self._waits_until = self._in_poll = None
            self._intents_changed = True
            return
        if not told or self._waits_until is None:
            return
        self._futile += 1
        if self._futile >= FUTILE:
            self._wait(random.uniform(0.0, SPREAD_S))
        else:
            self._waits_until = self._in_poll = None

    def _deliver_claimed(self, answer: list[Any], tenure: Tenure) -> None:
        claimed = self._claimed(answer)
        if tenure.room.fits(claimed.task):
            self._deliver(claimed, tenure)
        else:
            tenure.kept = claimed
            tenure.on_kept()

    def _claimed(self, answer: list[Any], until: float | None = None) -> Claimed:
        queue, raw = bytes_to_str(answer[1]), answer[2].decode("utf-8", "surrogateescape")
        intents, at = bool(answer[3]), float(answer[4])
        return Claimed(self._token, queue, raw, intents, at, self._read(raw), until)

    def _asks_for_more(self, tenure: Tenure) -> bool:
        """Whether there is room for more than what is kept, which starts first."""
        ready = not (tenure.suspended or tenure.progress())
        more = ready and self._start_kept(tenure) and tenure.room.has_slot()
        if not more:
            # It looks, and does not ask because it must not: that is no pause.
            self._brpop_sent_at = SYSTEM.monotonic()
        return more

    def _start_kept(self, tenure: Tenure) -> bool:
        """Start what is kept, if it fits now; whether there is a slot for more."""
        kept = tenure.kept
        if kept is None:
            return True
        if not tenure.room.fits(kept.task):
            if kept.until is not None:
                # Now it waits for room, as what is taken for a free slot does.
                tenure.kept = replace(kept, until=None)
                tenure.on_kept()
            return False
        if tenure.take_kept() is not kept:
            return True  # it was given to another instance in this moment
        if kept.until is None:
            tenure.on_kept()
        else:
            self._has_begun = True
        # The channel that it came by may be closed by now.
        kept.message.channel = self
        # It may have been cancelled or paused since.
        self._deliver(replace(kept, intents=self._may_be_unwanted(kept)), tenure)
        return bool(self.qos.can_consume())

    def _may_be_unwanted(self, kept: Claimed) -> bool:
        if kept.until is None:
            return True
        # What was read when it was taken is told of if it changes.
        self.read_notices()
        return kept.intents or self._intents_changed

    def _deliver(self, claimed: Claimed, tenure: Tenure) -> None:
        callbacks = self.connection._callbacks
        callback, own = callbacks.get(claimed.queue), tenure.store.keys.own_queue
        if callback is None and claimed.queue.startswith(own("")):
            # What waited for others is for the same consumer as what waits for us.
            callback = callbacks.get(own(tenure.instance))
        if callback is None:
            log.warning("nobody here consumes %s any more, the message goes back", claimed.queue)
            tenure.settle(Ending(claimed.token, requeue=True, stray=True))
        elif self._may_pass(claimed, tenure):
            self._start(callback, claimed, tenure)

    def _may_pass(self, claimed: Claimed, tenure: Tenure) -> bool:
        try:
            return tenure.gate(claimed)
        except BrokerError as error:
            # It stays held by nobody's hand here, and is found and given back.
            log.warning("a message that was taken is given back later: %s", error)
        except Exception as error:
            log.exception("a message cannot be judged and is put into quarantine")
            self._set_aside(claimed, tenure, f"cannot be judged: {type(error).__name__}")
        return False

    def _start(self, callback: Any, claimed: Claimed, tenure: Tenure) -> None:
        try:
            callback(claimed.message)
        except self._real_errors:
            raise
        except Exception as error:
            # What the gate let through and Celery stumbles over must not end the worker.
            log.exception("a message cannot be started and is put into quarantine")
            virtual.QoS.ack(self.qos, claimed.token)
            tenure.on_stumble(claimed.message)
            self._set_aside(claimed, tenure, f"cannot be started: {type(error).__name__}")

    def _set_aside(self, claimed: Claimed, tenure: Tenure, reason: str) -> None:
        try:
            tenure.quarantine(claimed, reason)
        except BrokerError as error:
            log.warning("a message is not yet in quarantine, and is tried again: %s", error)

    @property
    def _real_errors(self) -> tuple[type[Exception], ...]:
        # kombu counts KeyError among the errors of a connection; here it is one of a message.
        return tuple(e for e in self.connection_errors if e is not KeyError)  # type: ignore[attr-defined]

    def _read(self, raw: str) -> Any:
        """kombu's message, or None for what is none."""
        try:
            payload = loads(raw)
            payload["properties"]["delivery_tag"] = self._token
            # Of the submitter and of us, not of the task: what it sends on must not inherit it.
            for header in (LOST_HEADER, MOVED_HEADER):
                payload["headers"].pop(header, None)
            return self.Message(payload, channel=self)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - whatever somebody wrote, in whatever way broken
            log.error("a message cannot be read: %s", type(error).__name__)
            return None

    # consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any
    ) -> Any:
        """Consume as kombu does; what was claimed comes as a message, and is registered."""
        answer = super().basic_consume(  # type: ignore[misc]
            queue, no_ack, callback, consumer_tag, **kwargs
        )
        # What is not acknowledged is no task: the answers to a worker that asked its neighbours.
        acknowledged = not no_ack and queue not in self._fanout_queues  # type: ignore[attr-defined]
        if self.nxs_tenure is not None and acknowledged and self.nxs_tenure.has_tasks(queue):
            self._claims = True
            self.nxs_tenure.tells_soon = self.tells_soon
            self.connection._callbacks[queue] = partial(self._hand_over, callback)
        return answer

    def _hand_over(self, callback: Any, message: Any) -> Any:
        self.qos.append(message, message.delivery_tag)
        return callback(message)

    def close(self) -> None:
        """Close; nothing is awaited from a server that was not asked."""
        if self._waits_until is not None:
            self._waits_until = self._in_poll = None
        if self.nxs_tenure is not None and self._claims:
            self.nxs_tenure.tells_soon = at_once
            self.nxs_tenure.settle_all()
        if self._asks_ahead:
            with suppress(*self._real_errors):
                self.read_ahead()
        super().close()  # type: ignore[misc]
