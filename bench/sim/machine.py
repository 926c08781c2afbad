"""One machine of the fleet: slots, a line, a speed, a cache, and what it says of itself."""

from __future__ import annotations

from collections import OrderedDict, deque

from bench.sim.loop import EPOCH_S
from bench.sim.work import Job
from nxs_tasks.model.instance import Instance, Load, Profile
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.worker.tally import Tally

#: The queue that every machine takes from.
SHARED = "celery"
MEMORY_BYTES = 8 * 2**30
#: What a machine of a fleet on one network looks like while it does nothing.
MEMORY_USED = 0.4
LATENCY_MS = 2.0


class Machine:
    """A machine. `speed` 2 does a job in half of its service time."""

    def __init__(
        self,
        id_: str,
        slots: int = 4,
        speed: float = 1.0,
        tasks: tuple[str, ...] = ("task",),
        cached: int = 0,
    ) -> None:
        """`cached` keys fit into its cache; 0 = it has none."""
        self.id = id_
        self.slots = slots
        self.speed = speed
        self.line: deque[Job] = deque()
        self.running = 0
        #: What became of its jobs, as a worker counts it.
        self.tally = Tally()
        self.state = State.ACTIVE
        #: Since when, s.
        self.since = 0.0
        #: A black hole: every job fails after so long, s.
        self.fails_after: float | None = None
        #: Keys of what was taken here, the newest first.
        self.keys: deque[str] = deque()
        #: Since when a free slot has found nothing, s; None while it has.
        self.idle_since: float | None = None
        #: Whose line it takes from while it has nothing else.
        self.victim: str | None = None
        #: When it took part in a migration last, and when it received, s.
        self.migrated_at: float | None = None
        self.received_at: float | None = None
        #: Until when it is ejected, s, and how many times that counts.
        self.ejected_until = 0.0
        self.ejections = 0
        #: Takes nothing until it is known whose fault its failures are.
        self.suspended = False
        self._cached = cached
        self._cache: OrderedDict[str, None] = OrderedDict()
        self._profile = Profile(tasks=frozenset(tasks), queues=frozenset({SHARED}), shared=SHARED)
        self._load = Load()
        self._beats = 0
        self._beat_at = EPOCH_S

    @property
    def free(self) -> int:
        """Slots that would take a job, whatever waits."""
        takes = self.state is State.ACTIVE and not self.suspended
        return self.slots - self.running if takes else 0

    @property
    def up(self) -> bool:
        """Whether it takes part at all."""
        return self.state not in ENDED

    def ended(self, job: Job, seconds: float) -> None:
        """Count a job that took so long."""
        if job.failed:
            self.tally.failure(job.task)
        else:
            self.tally.success(job.task, seconds)

    def use_key(self, key: str, most: int) -> None:
        """Note that a job with a key begins; `most` are remembered."""
        if key in self.keys:
            self.keys.remove(key)
        self.keys.appendleft(key)
        while len(self.keys) > most:
            self.keys.pop()

    def beat(self, now: float) -> None:
        """Say how it is: what it says stays until it says it anew."""
        self._beats += 1
        self._beat_at = EPOCH_S + now
        self._load = Load(
            slots=self.slots,
            running=self.running,
            early=0,
            waiting=0,
            queued=len(self.line),
            load_avg=float(self.running),
            cores=self.slots,
            memory_used=int(MEMORY_USED * MEMORY_BYTES),
            memory_total=MEMORY_BYTES,
            latency_ms=LATENCY_MS,
            consuming=True,
            asked_s=0.0,
            mean_s=self.tally.mean_s,
            keys=tuple(self.keys),
        )

    def instance(self, *, live: bool) -> Instance:
        """What a snapshot has of it; counts as they are now if `live`, else as it said last."""
        load = self._load
        return Instance(
            id=self.id,
            state=self.state,
            epoch=1,
            since=EPOCH_S + self.since,
            beat_at=self._beat_at,
            beats=self._beats,
            load=load,
            profile=self._profile,
            succeeded=self.tally.succeeded,
            failed=self.tally.failed,
            inflight=self.running if live else load.running,
            queued=len(self.line) if live else load.queued,
            connections=1,
            stopped=not self.up,
            identity=f"{self.id}/1",
            migrated_at=_wall(self.migrated_at),
            received_at=_wall(self.received_at),
            ejected_until=_wall(self.ejected_until or None) or 0.0,
            ejections=self.ejections,
        )

    def has(self, key: str) -> bool:
        """Whether its cache has a key."""
        return key in self._cache

    def touch(self, key: str) -> bool:
        """Use a key, and load it if it was not there; whether it was. The oldest makes room."""
        if not self._cached or not key:
            return True
        found = key in self._cache
        self._cache[key] = None
        self._cache.move_to_end(key)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return found


def _wall(at: float | None) -> float | None:
    return None if at is None else EPOCH_S + at
