"""One frozen `Settings`: every knob with its unit, its default and why.

Where a value comes from, later wins: the default below · the environment (`NXS_FLEET=…`) · the
call (`Fleet(app, fleet="…")`). `nxs settings` prints each with who set it. An unknown name is
refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nxs_tasks.errors import SettingError
from nxs_tasks.folders import state_folder

log = logging.getLogger(__name__)

ENV_PREFIX = "NXS_"
#: Times in `heal_after`: one for each `nxs_tasks.model.healing.Remedy`.
HEAL_STEPS = 5
#: Read by the command line and the ready-made app, before there is a Fleet: not settings.
ENV_RESERVED = frozenset({"NXS_APP", "NXS_BROKER_URL", "NXS_RESULT_BACKEND"})


def knob(default: Any, unit: str, why: str) -> Any:
    """A settings field: default, unit, and why it has that default."""
    return field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights of the instance score (spec 1.1). They must add up to 1."""

    cpu: float = 0.25
    memory: float = 0.30
    queue: float = 0.20
    latency: float = 0.15
    reliability: float = 0.10


WEIGHTS = Weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every knob of NXS. Build it with `load()`, which validates."""

    fleet: str = knob("default", "name", "names the fleet; apps that share it share instances")
    state_dir: str = knob(
        "", "path", "history, logs, the embedded server; empty = the user's state folder"
    )
    history_url: str = knob("", "URL", "SQLAlchemy URL; empty = SQLite in the state directory")
    history_days: int = knob(30, "days", "rows older than this are deleted")
    tags: str = knob("", "list", "comma-separated tags of this machine, such as gpu,ssd")

    threshold: float = knob(0.5, "score", "an instance must score above this to be chosen")
    weights: Weights = knob(WEIGHTS, "weights", "of the five terms of the score; they add up to 1")
    max_queue: int = knob(100, "tasks", "queue depth that counts as full (score 0)")
    max_latency_ms: float = knob(1000.0, "ms", "round trip to the broker that counts as score 0")
    saturation: float = knob(
        1.0,
        "× slots",
        "an instance takes direct work up to this many tasks per slot; above 1 a task may wait "
        "behind a running one while another instance has a free slot (rounded down)",
    )
    slow_start: float = knob(
        60.0, "s", "an instance that became ACTIVE ranks from a tenth of its score to all of it"
    )
    degraded_weight: float = knob(0.5, "× score", "how a DEGRADED instance ranks among others")
    crowding: float = knob(
        0.2, "score", "taken off an instance whose slots all run this task; a part if some do"
    )
    io_crowding: float = knob(
        0.5, "score", "the same for tasks with io=True, counting all such tasks that run there"
    )
    affinity_keys: int = knob(4, "keys", "affinity keys that an instance's cache holds")
    affinity_wait: float = knob(
        6.0,
        "× slots",
        "for a warm cache a task waits behind up to so many others per slot, though another "
        "instance may be free; 0 = never. More hits, more time: see placement",
    )
    claim_ahead: float = knob(
        0.5,
        "s or 0",
        "while all tasks that run here take less on average, a worker takes one message ahead, "
        "so that no slot waits for the broker; 0 = never",
    )
    task_memory: float = knob(
        0.0,
        "GB",
        "for tasks that declare memory=; an instance runs no more than fits; 0 = the machine's own",
    )
    eject_failures: int = knob(
        5,
        "tasks",
        "so many failures in a row, of tasks that go well elsewhere: the instance takes no work",
    )
    eject_s: float = knob(30.0, "s", "for so long the first time; longer each further time")
    view_max_age: float = knob(1.0, "s", "a submitter re-reads the fleet when its view is older")
    placement_sample: float = knob(0.01, "share", "placements kept in the history; 1 = all")
    broker_timeout: float = knob(2.0, "s", "longest wait for one answer of the broker")

    heartbeat_period: float = knob(5.0, "s", "how often an instance says how it is")
    join_period: float = knob(
        1.0, "s", "heartbeats while JOINING, or after one that failed: three take 3 s, and no 15"
    )
    join_beats: int = knob(3, "heartbeats", "consecutive ones that make an instance ACTIVE")
    recover_beats: int = knob(
        5, "heartbeats", "as long as these take, until DEGRADED is ACTIVE again"
    )
    join_grace: float = knob(
        120.0, "s", "JOINING for so long without progress, and not ACTIVE: FAILED"
    )
    join_most: float = knob(
        900.0, "s", "the same for an instance that tells of its progress (`fleet.progress`)"
    )
    join_refused: float = knob(600.0, "s", "for so long a FAILED instance may not join again")
    degraded_beats: int = knob(
        3, "heartbeats", "consecutive unhealthy ones that make an ACTIVE instance DEGRADED"
    )
    error_rate: float = knob(
        0.1, "share", "of the tasks here may fail, if they go well elsewhere: above is unhealthy"
    )
    latency_factor: float = knob(
        2.0, "× baseline", "tasks of a name take so much longer here than they did: unhealthy"
    )
    latency_least: float = knob(0.05, "s", "and by at least so much longer: less is noise")
    health_window: float = knob(
        60.0,
        "s",
        "how tasks go is judged by what ended within it; five times as long where little runs",
    )
    health_runs: int = knob(20, "tasks", "fewest of a name that say how it goes here")
    deaf_beats: int = knob(
        4, "heartbeats", "consecutive ones of a worker that takes no work: it is a ZOMBIE"
    )
    heal_after: str = knob(
        "5,10,20,30,50",
        "list",
        "for so many s its consumer takes no work: the worker consumes anew, connects anew, "
        "restarts its pool, ends, and ends at once",
    )
    flap_losses: int = knob(
        3, "times", "an instance lost unplanned more often within flap_window is withheld"
    )
    flap_window: float = knob(300.0, "s", "window of flap_losses")
    flap_back_off: str = knob(
        "60,300,900", "list", "for so many s it is withheld the first time, the second, each later"
    )
    flap_forgiven: float = knob(
        900.0, "s", "without a loss for so long, one of its back-offs no longer counts"
    )
    withheld_most: float = knob(
        0.2, "share", "of the fleet is withheld at most; one instance always may be"
    )
    mass_silence: float = knob(
        0.55, "share", "more of the fleet silent at once: the observer is the suspect, none is lost"
    )
    mass_hold: float = knob(300.0, "s", "for so long at most; then the silence is believed")
    silent_after: float = knob(
        15.0, "s", "three missed heartbeats: no new work is placed on the instance"
    )
    gone_after: float = knob(
        10.0, "s", "two missed heartbeats and no connection left: the instance is GONE"
    )
    gone_kept: float = knob(3600.0, "s", "how long a GONE instance stays in the status table")
    outcome_days: int = knob(7, "days", "window of historical reliability")

    server_fsync: str = knob(
        "always",
        "mode",
        "when the embedded server has its file on disk: always, or everysec, which is faster and "
        "may lose what it accepted in its last second",
    )
    zombie_after: float = knob(
        30.0, "s", "silence with connections left: a ZOMBIE, what waits for it goes to others"
    )
    evict_after: float = knob(
        60.0, "s", "silence of a ZOMBIE after which it is GONE and what it runs goes to others"
    )
    lost_holders: int = knob(3, "times", "a task whose holder died so often is put into quarantine")
    cancel_days: int = knob(
        7, "days", "a cancelled task is remembered for so long, and can be taken back"
    )
    checkpoint_days: int = knob(
        7, "days", "what a task saved is kept for so long after it was opened or saved last"
    )
    checkpoint_limit: float = knob(
        1.0, "MB", "largest state that a task may save: it lies in the broker's memory"
    )
    submit_deadline: float = knob(
        2.0, "s", "a submission answers within this, whatever the broker does"
    )
    spool_limit: float = knob(
        256.0, "MB", "tasks that the broker does not take are kept on this machine up to this size"
    )

    steal_period: float = knob(
        1.0, "s", "an instance that is idle for so long looks for what waits for others"
    )
    lifecycle_period: float = knob(5.0, "s", "how often the state machine is evaluated")
    rebalance_period: float = knob(30.0, "s", "how often the lines of the instances are compared")
    migrate_every: float = knob(
        60.0, "s", "an instance takes part in one migration of waiting tasks within this"
    )
    migrate_hold: float = knob(
        300.0,
        "s",
        "who received does not give, and a task that was moved is not moved again, within this",
    )
    migrate_most: int = knob(5000, "tasks", "one migration moves no more than this")
    record_period: float = knob(5.0, "s", "how often events move from the broker into history")
    prune_period: float = knob(3600.0, "s", "how often old history is deleted")
    beat_lease: float = knob(10.0, "s", "a beat that has not renewed for so long has lost the lead")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the setting."""
        total = sum(getattr(self.weights, f.name) for f in fields(Weights))
        for f in fields(Weights):
            share = getattr(self.weights, f.name)
            _require(0.0 <= share <= 1.0, f"weights.{f.name}", share, "must be in 0..1")
        _require(abs(total - 1.0) < 1e-9, "weights", total, "must add up to 1")
        _require(0.0 <= self.threshold < 1.0, "threshold", self.threshold, "must be in 0..1")
        _require(
            0.0 <= self.placement_sample <= 1.0, "placement_sample", self.placement_sample, "0..1"
        )
        _require(self.saturation >= 1.0, "saturation", self.saturation, "must be at least 1")
        _require(
            all(c.isalnum() or c in "-_." for c in self.fleet) and bool(self.fleet),
            "fleet",
            self.fleet,
            "may hold letters, digits, '-', '_' and '.'",
        )
        _require(
            self.server_fsync in ("always", "everysec"),
            "server_fsync",
            self.server_fsync,
            "must be always or everysec",
        )
        _require(0.0 < self.degraded_weight <= 1.0, "degraded_weight", self.degraded_weight, "0..1")
        for name in ("crowding", "io_crowding", "affinity_wait", "claim_ahead", "task_memory"):
            _require(getattr(self, name) >= 0.0, name, getattr(self, name), "must not be below 0")
        for name in ("error_rate", "withheld_most", "mass_silence"):
            _require(0.0 < getattr(self, name) <= 1.0, name, getattr(self, name), "0..1")
        _require(self.latency_factor > 1.0, "latency_factor", self.latency_factor, "above 1")
        _require(self.flap_losses >= 1, "flap_losses", self.flap_losses, "must be at least 1")
        _require(
            _rises(self.flap_back_off),
            "flap_back_off",
            self.flap_back_off,
            "must be seconds, none below the one before, such as 60,300,900",
        )
        _require(
            _rises(self.heal_after) and len(self.heals_after) == HEAL_STEPS,
            "heal_after",
            self.heal_after,
            f"must be {HEAL_STEPS} times in s, none below the one before, such as 5,10,20,30,50",
        )
        _require(self.lost_holders >= 1, "lost_holders", self.lost_holders, "must be at least 1")
        for f in fields(self):
            value = getattr(self, f.name)
            if f.metadata["unit"] in _POSITIVE_UNITS:
                _require(value > 0, f.name, value, "must be above 0")
        self._check_times()

    def _check_times(self) -> None:
        _require(
            self.zombie_after >= self.silent_after,
            "zombie_after",
            self.zombie_after,
            f"must not be below silent_after ({self.silent_after} s)",
        )
        _require(
            self.evict_after > self.zombie_after,
            "evict_after",
            self.evict_after,
            f"must be above zombie_after ({self.zombie_after} s)",
        )
        _require(
            self.join_most >= self.join_grace,
            "join_most",
            self.join_most,
            f"must not be below join_grace ({self.join_grace} s)",
        )
        _require(
            self.migrate_hold >= self.migrate_every,
            "migrate_hold",
            self.migrate_hold,
            f"must not be below migrate_every ({self.migrate_every} s)",
        )
        _require(
            self.health_window <= _COUNTED_S,
            "health_window",
            self.health_window,
            f"must not be above {_COUNTED_S:.0f} s: the fleet counts no further back",
        )
        for name in ("gone_after", "silent_after"):
            _require(
                getattr(self, name) > self.heartbeat_period,
                name,
                getattr(self, name),
                f"must be above heartbeat_period ({self.heartbeat_period} s), "
                "or a living instance would be given up between two heartbeats",
            )

    @property
    def back_offs(self) -> tuple[float, ...]:
        """`flap_back_off` as numbers, s."""
        return tuple(float(part) for part in self.flap_back_off.split(","))

    @property
    def heals_after(self) -> tuple[float, ...]:
        """`heal_after` as numbers, s."""
        return tuple(float(part) for part in self.heal_after.split(","))

    @property
    def longest_gap(self) -> float:
        """Between two heartbeats that still count as consecutive, s: one may be late."""
        return 2 * max(self.heartbeat_period, self.join_period)

    @property
    def tag_set(self) -> tuple[str, ...]:
        """`tags` as a sorted tuple."""
        return tuple(sorted({t.strip() for t in self.tags.split(",") if t.strip()}))

    @property
    def state_path(self) -> Path:
        """The state directory as a path (not created)."""
        return Path(state_folder(self.state_dir))


#: The fleet counts how tasks ended for so long, s.
_COUNTED_S = 300.0
_POSITIVE_UNITS = frozenset({"MB", "s", "ms", "days", "tasks", "heartbeats", "keys"})


@dataclass(frozen=True, slots=True)
class Sourced:
    """The settings, and for each name who set it: `default`, `NXS_…`, `Fleet(…)`."""

    settings: Settings
    sources: Mapping[str, str]


def load(
    overrides: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None
) -> Sourced:
    """Build the settings from defaults, environment and call.

    Raises `SettingError` for an unknown name (with the nearest known one) or a bad value.
    """
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    sources = {f.name: "default" for f in fields(Settings)}
    for key, text in sorted(env.items()):
        if key.startswith(ENV_PREFIX) and key not in ENV_RESERVED:
            name = key.removeprefix(ENV_PREFIX).lower()
            if name not in sources and not _near(name):
                # Not ours: Kubernetes sets NXS_REDIS_SERVICE_HOST for a service "nxs-redis".
                log.warning("%s is no setting of NXS and is ignored", key)
                continue
            name = _known(name, shown=key)
            values[name] = _parse(name, text, shown=key)
            sources[name] = key
    for name, value in (overrides or {}).items():
        known = _known(name, shown=name)
        values[known] = _parse(known, value, shown=name)
        sources[name] = f"Fleet({name}=…)"
    return Sourced(Settings(**values), sources)


def _rises(text: str) -> bool:
    try:
        seconds = [float(part) for part in text.split(",")]
    except ValueError:
        return False
    return seconds == sorted(seconds) and seconds[0] > 0.0 and math.isfinite(seconds[-1])


def _near(name: str) -> list[str]:
    return difflib.get_close_matches(name, [f.name for f in fields(Settings)], n=1)


def _known(name: str, shown: str) -> str:
    names = [f.name for f in fields(Settings)]
    if name in names:
        return name
    near = _near(name)
    shape = (lambda n: ENV_PREFIX + n.upper()) if shown.startswith(ENV_PREFIX) else str
    hint = f", did you mean {shape(near[0])!r}?" if near else "; `nxs settings` lists them"
    raise SettingError(f"unknown setting {shown!r}{hint}")


def _parse(name: str, value: Any, shown: str) -> Any:
    default = next(f.default for f in fields(Settings) if f.name == name)
    if isinstance(default, Weights):
        return _parse_weights(value, shown)
    if name == "tags" and isinstance(value, list | tuple | set | frozenset):
        value = ",".join(str(tag) for tag in value)
    kind: Any = type(default)
    try:
        parsed = kind(value)
        # int(2.7) and str(None) succeed and are not what was meant; nor is an endless number.
        if value is None or (kind is int and parsed != float(value)) or not _finite(parsed):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise SettingError(f"{shown}={value!r}: expected {kind.__name__}") from None
    return parsed


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _parse_weights(value: Any, shown: str) -> Weights:
    if isinstance(value, Weights):
        return value
    names = [f.name for f in fields(Weights)]
    try:
        pairs = (
            value if isinstance(value, Mapping) else dict(p.split("=") for p in value.split(","))
        )
        unknown = sorted(set(pairs) - set(names))
        if not unknown:
            return Weights(**{k: float(v) for k, v in pairs.items()})
    except (AttributeError, TypeError, ValueError):
        raise SettingError(
            f"{shown}={value!r}: expected {'=…,'.join(names)}=… that add up to 1"
        ) from None
    raise SettingError(f"{shown}: unknown weight {unknown[0]!r}; known: {', '.join(names)}")


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise SettingError(f"setting {name}={value!r}: {rule}")
