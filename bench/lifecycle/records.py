"""What the store's scripts do to the records of instances, in simulated time.

One method for each script (join, heartbeat, transition, withhold, forget, observe), and what of a
record they write that the lifecycle reads. A test runs both side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nxs_tasks.errors import JoinRefused, NameTaken, Stale
from nxs_tasks.model.decision import Decision, Forget, Transition, Withhold
from nxs_tasks.model.instance import STEADY, Flapping, Instance, Load
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, PLACEABLE, Event, State
from nxs_tasks.settings import Settings

#: Losses that are remembered.
KEPT = 8
SHARED = "celery"
NO_LOAD = Load()


@dataclass(frozen=True, slots=True)
class Move:
    """One line of the stream of transitions."""

    at: float
    name: str
    epoch: int
    source: State | None  # None = nobody had the name
    target: State
    event: Event


@dataclass(slots=True)
class Record:
    """One instance, as its hash in the store."""

    state: State
    epoch: int
    since: float
    identity: str
    beat_at: float | None = None
    beats: int = 0
    load: Load = NO_LOAD
    stopped: bool = False
    sick: int = 0
    well: int = 0
    deaf: int = 0
    progress: str = ""
    progress_at: float | None = None
    losses: list[float] = field(default_factory=list)
    level: int = 0
    level_at: float = 0.0
    until: float = 0.0
    why: str = ""

    def lost(self, at: float) -> None:
        """Remember an unplanned loss."""
        self.losses = [*self.losses, at][-KEPT:]

    def instance(self, name: str, connections: int | None) -> Instance:
        """As the snapshot reads it. Nothing waits here and nothing is held."""
        flapping = STEADY
        if self.losses or self.level:
            flapping = Flapping(
                losses=tuple(self.losses),
                level=self.level,
                level_at=self.level_at,
                until=self.until,
                why=self.why,
            )
        return Instance(
            id=name,
            state=self.state,
            epoch=self.epoch,
            since=self.since,
            beat_at=self.beat_at,
            beats=self.beats,
            load=self.load,
            profile=None,
            inflight=0,
            queued=0,
            connections=connections,
            stopped=self.stopped,
            identity=self.identity,
            sick=self.sick,
            well=self.well,
            deaf=self.deaf,
            progress_at=self.progress_at,
            flapping=flapping,
        )


class Records:
    """All instances of a fleet. Every time is the server's, s."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.by_name: dict[str, Record] = {}
        #: Of the process that has the name, as the server counts them; absent = none.
        self.connections: dict[str, int] = {}
        self.server_started_at: float | None = None
        self.moves: list[Move] = []
        self._longest_gap = settings.longest_gap
        self._epochs: dict[str, int] = {}
        self._observed: tuple[float, float] | None = None  # since, last
        self._doubted, self._believed = False, 0.0

    # what a process writes

    def join(self, at: float, name: str, identity: str, keep_epoch: int = 0) -> int:
        """`join.lua`; whoever joins has just read the epoch. Raises `NameTaken`, `JoinRefused`."""
        epoch, before = self._epochs.get(name, 0), self.by_name.get(name)
        theirs = before is None or before.identity != identity
        if keep_epoch and (epoch > keep_epoch or (epoch == keep_epoch and theirs)):
            raise NameTaken(name)
        ended = before is not None and before.state in ENDED
        if before is not None and before.state is State.FAILED:
            refused = before.since + self.settings.join_refused - at
            if refused > 0:
                raise JoinRefused(f"{refused:.1f}")
        previous, epoch = epoch, max(keep_epoch, epoch) if keep_epoch else epoch + 1
        if ended and epoch == previous:
            epoch += 1
        self._epochs[name] = epoch
        source = None if before is None else before.state
        if before is not None and not ended and epoch != previous:
            self.moves.append(Move(at, name, previous, source, State.GONE, Event.REPLACED))
            source = State.GONE
        self.moves.append(Move(at, name, epoch, source, State.JOINING, Event.JOINED))
        new = Record(State.JOINING, epoch, at, identity)
        if before is not None:
            if before.state in PLACEABLE and epoch != previous:
                before.lost(at)
            new.losses, new.level, new.level_at = before.losses, before.level, before.level_at
            new.until, new.why = before.until, before.why
        self.by_name[name] = new
        return epoch

    def heartbeat(
        self, at: float, name: str, epoch: int, load: Load, *, last: bool = False
    ) -> State | None:
        """`heartbeat.lua`: the state, or None if the epoch is no longer this one."""
        record = self.by_name.get(name)
        if record is None or record.epoch != epoch:
            return None
        seen = record.beat_at
        again = seen is not None and at - seen <= self._longest_gap
        record.beats = record.beats + 1 if again else 1
        if load.unhealthy:
            record.sick, record.well = (record.sick if again else 0) + 1, 0
        else:
            record.well, record.sick = (record.well if again else 0) + 1, 0
        record.deaf = (record.deaf if again else 0) + 1 if load.consuming is False else 0
        record.beat_at, record.load, record.stopped = at, load, record.stopped or last
        if load.progress != record.progress:
            record.progress, record.progress_at = load.progress, at
        return record.state

    # what the control plane writes

    def observe(self, at: float, longest_pause_s: float) -> tuple[float, float, float]:
        """`observe.lua`: since when without a break, how long ago the last was, believed since."""
        since, last = self._observed or (at, at)
        if at - last > longest_pause_s:
            since = at
        if self._doubted:
            self._believed, self._doubted = at, False
        self._observed = since, at
        return since, at - last, self._believed

    def doubt(self) -> None:
        """`FleetStore.doubt`."""
        self._doubted = True

    def apply(self, at: float, decision: Decision) -> None:
        """Carry out a decision. Raises `Stale`."""
        if isinstance(decision, Transition):
            self._transition(at, decision)
        elif isinstance(decision, Withhold):
            self._withhold(decision)
        elif isinstance(decision, Forget):
            self._judged(decision)
            del self.by_name[decision.instance]

    def _judged(self, decision: Transition | Withhold | Forget) -> Record:
        record = self.by_name.get(decision.instance)
        if record is None or (record.state, record.epoch) != (decision.source, decision.epoch):
            raise Stale(decision.instance)
        return record

    def _transition(self, at: float, decision: Transition) -> None:
        record = self._judged(decision)
        record.state, record.since = decision.target, at
        self.moves.append(
            Move(at, decision.instance, record.epoch, decision.source, record.state, decision.event)
        )
        if decision.loss:
            record.lost(at)

    def _withhold(self, decision: Withhold) -> None:
        record = self._judged(decision)
        if record.level != decision.level_before or record.level_at >= decision.loss_at:
            raise Stale(decision.instance)
        record.level, record.level_at = decision.level, decision.loss_at
        record.until, record.why = decision.until, decision.reason

    # looking

    def snapshot(
        self,
        at: float,
        observed_since: float | None = None,
        believed_since: float | None = None,
        late_s: float = 0.0,
    ) -> Snapshot:
        """The fleet now."""
        count = self.connections.get
        return Snapshot(
            taken_at=at,
            instances=tuple(
                r.instance(name, count(name, 0)) for name, r in sorted(self.by_name.items())
            ),
            shared_queue=SHARED,
            shared_depth=0,
            server_started_at=self.server_started_at,
            observed_since=observed_since,
            believed_since=believed_since,
            late_s=late_s,
        )

    def is_quiet(self, at: float) -> bool:
        """Whether the policy can decide nothing but `Nothing`, and does not doubt its observer.

        It need not be asked then. A test asks it all the same, and gets the same history.
        """
        settings, connections = self.settings, self.connections.get
        overdue = expected = 0
        for name, record in self.by_name.items():
            if record.level or self._lost_often(record, at):
                return False
            if record.state is State.ACTIVE:
                heard = record.since if record.beat_at is None else record.beat_at
                silent, connected = at - heard, connections(name)
                expected += 1
                if silent > settings.heartbeat_period:
                    overdue += silent > settings.gone_after or not connected
                    if silent > (settings.zombie_after if connected else settings.gone_after):
                        return False
                if record.sick or record.deaf:
                    return False
            elif record.state not in ENDED or at - record.since > settings.gone_kept:
                return False
        return overdue <= settings.mass_silence * expected

    def _lost_often(self, record: Record, at: float) -> bool:
        few, losses = self.settings.flap_losses, record.losses
        return len(losses) > few and at - losses[-1 - few] <= self.settings.flap_window
