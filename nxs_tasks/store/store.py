"""The live state of one fleet: one method for each script, in the words of the model."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any, NamedTuple, cast

from nxs_tasks.errors import (
    BrokerError,
    BrokerUnreachable,
    JoinRefused,
    MessageError,
    NameTaken,
    Stale,
)
from nxs_tasks.model.decision import Forget, Nothing, Release, Transition, Withhold
from nxs_tasks.model.holder import Holder
from nxs_tasks.model.instance import Load, Profile
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.readiness import home
from nxs_tasks.store import scripts
from nxs_tasks.store.connect import Client, explained, out_of_memory, require_version
from nxs_tasks.store.keys import Keys, Wire
from nxs_tasks.store.message import read, reroute
from nxs_tasks.store.rows import Rows

log = logging.getLogger(__name__)

#: Streams are trimmed to about this length if no control worker reads them.
STREAM_LENGTH = 20_000
#: Scripts that run when there is no more memory: they free some, or move what is there; and a task
#: that cannot open its checkpoint would be given back for ever.
MAKE_ROOM = frozenset(
    {
        "acknowledge",
        "cancel",
        "heartbeat",
        "open_checkpoint",
        "relocate",
        "transition",
        "unshelve",
        "withdraw",
    }
)
#: Messages moved by one call of the script.
MOVE_BATCH = 200


class Confirmed(NamedTuple):
    """What the record of an instance says when it has taken a heartbeat."""

    state: State
    beats: int  # consecutive ones
    cordoned: str  # who has taken it out of service, and why; "" = nobody
    drain: str  # who wants its process to end, and why; "" = nobody


class FleetStore:
    """The live state of one fleet in one Redis.

    Every method raises `BrokerError` (unreachable, refused, too old) when the server cannot serve.
    """

    def __init__(self, client: Client, keys: Keys, wire: Wire, shared_queue: str, url: str) -> None:
        self.client = client
        self.keys = keys
        self.wire = wire
        self.shared_queue = shared_queue
        self.url = url
        self._scripts = scripts.load(client)
        self._rows = Rows(client, keys, url)

    def call(self, script: str, keys: list[str], args: Iterable[Any]) -> Any:
        """Run one script with our errors."""
        given = list(args)
        with explained(self.url):
            try:
                return self._scripts[script](keys=keys, args=given)
            except Exception as error:
                if script not in MAKE_ROOM or not out_of_memory(error):
                    raise
                text = scripts.sparing(scripts.text(script))
                return self.client.eval(text, len(keys), *keys, *given)

    # server

    def check_server(self) -> Mapping[str, Any]:
        """INFO of a server that answers, lets us in, and is new enough."""
        with explained(self.url):
            info = self.client.info("server")
        require_version(info, self.url)
        return info

    def ping(self) -> None:
        """One round trip."""
        with explained(self.url):
            self.client.ping()

    # an instance's own writes

    def epoch(self, instance_id: str) -> int:
        """The last epoch given out for a name; 0 if none was."""
        with explained(self.url):
            return int(self.client.hget(self.keys.epochs(), instance_id) or 0)

    def join(
        self,
        instance_id: str,
        identity: str,
        profile: Profile,
        *,
        seen_epoch: int,
        keep_epoch: int = 0,
        refused_s: float = 0.0,
    ) -> int:
        """Take a name, and return the epoch.

        Raises `NameTaken` if `seen_epoch` is old, `JoinRefused` if it FAILED less than `refused_s`
        ago.

        `keep_epoch` is the epoch to take, at least, for a process that was in the fleet before.
        """
        text = json.dumps(profile.as_dict(), separators=(",", ":"))
        keys = self.keys
        took, epoch = self.call(
            "join",
            [
                keys.members(),
                keys.instance(instance_id),
                keys.epochs(),
                keys.profiles(),
                keys.transitions(),
                keys.outcomes(instance_id),
                keys.holders(),
                keys.ejected(),
            ],
            [
                *(instance_id, seen_epoch, identity, _digest(text), text, STREAM_LENGTH),
                *(keep_epoch, refused_s),
            ],
        )
        if took < 0:
            raise JoinRefused(
                f"{instance_id} did not become ACTIVE in time and is FAILED: it may join again in "
                f"{float(epoch):.0f} s; `nxs story {instance_id}` says why, `nxs admit "
                f"{instance_id}` lets it in at once"
            )
        if not took:
            raise NameTaken(
                f"another worker took the name {instance_id!r} at the same moment: "
                "give each worker its own name (celery worker -n NAME@%h)"
            )
        return int(epoch)

    def heartbeat(
        self,
        instance_id: str,
        epoch: int,
        load: Load,
        *,
        longest_gap_s: float,
        succeeded: int,
        failed: int,
        window_days: int,
        last: bool = False,
    ) -> Confirmed:
        """Write one heartbeat; returns what the record says.

        `succeeded` and `failed` are totals of this process. Raises `Stale` if another process has
        taken the name, or the record is gone.
        """
        # Most are empty or unknown, and everybody reads them all the time.
        text = json.dumps({k: v for k, v in asdict(load).items() if v not in (None, {}, (), "")})
        answer = self.call(
            "heartbeat",
            [
                self.keys.instance(instance_id),
                self.keys.outcomes(instance_id),
                self.keys.waiting(),
            ],
            [
                *(epoch, longest_gap_s, text, window_days * 24, succeeded, failed, int(last)),
                *(instance_id, "" if load.queued is None else load.queued),
                *(int(bool(load.unhealthy)), load.progress, int(load.consuming is False)),
                load.kept,
            ],
        )
        if not answer[0]:
            raise Stale(f"{instance_id} is now at epoch {answer[1] or 'none'}, not {epoch}")
        return Confirmed(State(answer[1]), int(answer[2]), *map(str, answer[3:5]))

    # looking

    def snapshot(
        self, *, full: bool = False, longest: int | None = None, also: str = ""
    ) -> Snapshot:
        """The fleet at one moment.

        With `longest` only so many whose own queues are the longest, and the instance `also`.

        `full` adds what the lifecycle needs and placement does not: the connections of every
        process as the broker sees them, since when the server runs, and who may hold messages
        (three more calls).
        """
        keys, wire = self.keys, self.wire
        suffixes = [key.removeprefix(wire.prefix) for key in wire.queue_keys("")]
        taken, shared, rows = self.call(
            "snapshot",
            [keys.members(), keys.waiting()],
            [
                "" if longest is None else longest,
                also,
                keys.instance(""),
                wire.prefix + keys.inflight_base(),
                wire.prefix + keys.own_queue(""),
                wire.prefix + self.shared_queue,
                *suffixes,
            ],
        )
        instances = self._rows.read(rows, self.connections() if full else None)
        return Snapshot(
            taken_at=float(taken),
            instances=tuple(sorted(instances, key=lambda i: i.id)),
            shared_queue=self.shared_queue,
            shared_depth=int(shared),
            server_started_at=self._started_at(float(taken)) if full else None,
            holders=self.holders() if full else (),
        )

    def holders(self) -> tuple[Holder, ...]:
        """Every process that may hold messages, and how many it holds."""
        base = self.wire.prefix + self.keys.inflight_base()
        found = self.call("holders", [self.keys.holders()], [base])
        split = sorted(text.rsplit(":", 2) for text in found)
        return tuple(Holder(instance=i, epoch=int(e), held=int(held)) for i, e, held in split)

    def observe(self, longest_pause_s: float) -> tuple[float, float, float]:
        """Note a look at the fleet; returns since when it is looked at without a break (server
        time, s), how long ago the last look was (s), and since when what is seen is believed
        (server time, s; 0 = it always was).
        """
        since, gap, believed = self.call("observe", [self.keys.observation()], [longest_pause_s])
        return float(since), float(gap), float(believed)

    def doubt(self) -> None:
        """What the last look saw proves nothing: time-outs count from the next look."""
        with explained(self.url):
            self.client.hset(self.keys.observation(), "doubted", 1)

    def observed(self, longest_pause_s: float) -> tuple[float, float, float]:
        """The same without a look, for who acts between two."""
        with explained(self.url):
            fields = ("since", "last", "believed")
            since, last, believed = self.client.hmget(self.keys.observation(), *fields)
        now, believed_since = self.now(), float(believed or 0.0)
        if since is None or last is None or now - float(last) > longest_pause_s:
            return now, 0.0, believed_since
        return float(since), now - float(last), believed_since

    def now(self) -> float:
        """The server's time, s: the one clock that all nodes share."""
        with explained(self.url):
            seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6

    def _started_at(self, now: float) -> float | None:
        uptime = self.check_server().get("uptime_in_seconds")
        return None if uptime is None else now - float(uptime)

    def connections(self) -> Mapping[str, int] | None:
        """Open connections by client name, or None where CLIENT LIST is not allowed."""
        try:
            with explained(self.url):
                clients = self.client.client_list()
        except BrokerUnreachable:
            raise
        except BrokerError:
            return None
        return Counter(entry["name"] for entry in clients if entry.get("name"))

    def disconnect(self, instance_id: str, epoch: int) -> int | None:
        """Close every connection of one process; how many, or None where that is not allowed.

        No script may do that, so whoever calls this has looked a moment ago who has the name.
        """
        name = self.keys.client_name(instance_id, epoch)
        try:
            with explained(self.url):
                ids = [c["id"] for c in self.client.client_list() if c.get("name") == name]
                return sum(int(self.client.client_kill_filter(_id=i, skipme=True)) for i in ids)
        except BrokerUnreachable:
            raise
        except BrokerError:
            return None

    # effects: each checks state and epoch in its script

    def transition(self, decision: Transition) -> str:
        """Carry out a transition; returns its stream id. Raises `Stale`."""
        applied, detail = self.call(
            "transition",
            [self.keys.instance(decision.instance), self.keys.transitions()],
            [
                decision.instance,
                decision.epoch,
                decision.source,
                decision.target,
                decision.event,
                decision.reason,
                json.dumps(dict(decision.evidence)),
                STREAM_LENGTH,
                int(decision.loss),
            ],
        )
        if not applied:
            raise Stale(f"{decision.instance} is now {detail}")
        return str(detail)

    def withhold(self, decision: Withhold) -> None:
        """Carry it out, and record it. Raises `Stale`."""
        done, detail = self.call(
            "withhold",
            [self.keys.instance(decision.instance), self.keys.transitions()],
            [
                *(decision.instance, decision.epoch, decision.source, decision.level_before),
                *(decision.level, decision.loss_at, decision.until, decision.reason),
                *(json.dumps(dict(decision.evidence)), STREAM_LENGTH),
            ],
        )
        if not done:
            raise Stale(f"{decision.instance} is now {detail}")

    def admit(self, instance_id: str, who: str) -> tuple[State, float] | None:
        """Let an instance in that FAILED or is withheld; its state, and until when it was
        withheld (server time, s). None if there is no such instance.
        """
        found = self.call(
            "admit",
            [self.keys.instance(instance_id), self.keys.transitions()],
            [instance_id, who, STREAM_LENGTH],
        )
        return (State(found[0]), float(found[1])) if found else None

    def note(self, decision: Nothing) -> None:
        """Keep the reason why nothing was done. Raises `Stale`."""
        noted = self.call(
            "note",
            [self.keys.instance(decision.instance)],
            [decision.epoch, decision.source, decision.reason],
        )
        if not noted:
            raise Stale(f"{decision.instance} changed meanwhile")

    def remark(
        self, instance_id: str, epoch: int, event: str, reason: str, evidence: Mapping[str, Any]
    ) -> str:
        """Record what was done about an instance that stays in its state; returns its stream id.

        It stands among the transitions, with one state as source and target. Raises `Stale` if
        another process has the name.
        """
        known, detail = self.call(
            "remark",
            [self.keys.instance(instance_id), self.keys.transitions()],
            [instance_id, epoch, event, reason, json.dumps(dict(evidence)), STREAM_LENGTH],
        )
        if not known:
            raise Stale(f"{instance_id} is now {detail}")
        return str(detail)

    def forget(self, decision: Forget, keep_outcomes_s: int) -> None:
        """Remove the record of an instance that ended. Raises `Stale`."""
        keys = self.keys
        gone = self.call(
            "forget",
            [
                keys.members(),
                keys.instance(decision.instance),
                keys.outcomes(decision.instance),
            ],
            [decision.instance, decision.epoch, decision.source, keep_outcomes_s],
        )
        if not gone:
            raise Stale(f"{decision.instance} changed meanwhile")

    def tidy(self) -> int:
        """Remove profiles that no instance has any more; returns how many."""
        keys = self.keys
        removed = self.call("tidy", [keys.members(), keys.profiles()], [keys.instance("")])
        self._rows.forget_profiles()
        return int(removed)

    def release(self, decision: Release) -> int:
        """Move waiting tasks out of an own queue to where each can run; returns how many.

        Where that is says `policy.fleet.placement.home`; some may have to stay. Order and priority
        are kept, and moved tasks come before what waits there: they were placed earlier than they
        could be run. What is no message stays, because it would harm whoever takes it. Raises
        `Stale`.
        """
        # It may live, and be the one with the shortest line; yet it takes none. Nor do others that
        # are cordoned: two of them would give it to each other.
        snapshot = self.snapshot().without(decision.instance).in_service()
        own = self.keys.own_queue

        def where(task: str) -> str | None:
            return home(task, snapshot, own, decision.target)

        sources = self.wire.queue_keys(own(decision.instance))
        return sum(self._empty(source, n, decision, where) for n, source in enumerate(sources))

    def _empty(
        self, source: str, priority: int, decision: Release, where: Callable[[str], str | None]
    ) -> int:
        total = staying = 0
        while True:
            with explained(self.url):
                end = staying + MOVE_BATCH - 1
                raws = cast("list[str]", self.client.lrange(source, staying, end))
            by_home: dict[str, list[str]] = {}
            for raw in raws:
                queue = _home_of(raw, where)
                if queue is not None:
                    by_home.setdefault(queue, []).extend((raw, reroute(raw, queue)))
            moved = 0
            for queue, pairs in by_home.items():
                moved += self._move(source, self.wire.queue_keys(queue)[priority], decision, pairs)
            total += moved
            staying += len(raws) - sum(len(pairs) // 2 for pairs in by_home.values())
            if len(raws) < MOVE_BATCH or (by_home and not moved):
                return total

    def _move(self, source: str, target: str, decision: Release, pairs: list[str]) -> int:
        moved = self.call(
            "move",
            [self.keys.instance(decision.instance), source, target],
            [decision.epoch, decision.source, *pairs],
        )
        if moved < 0:
            raise Stale(f"{decision.instance} changed meanwhile")
        return int(moved)


def _home_of(raw: str, where: Callable[[str], str | None]) -> str | None:
    try:
        return where(read(raw).task)
    except MessageError:
        return None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
