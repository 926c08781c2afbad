"""What a worker leaves on its own machine to say that it lives, and what may be concluded from it.

A small file in the state directory, written each second by a thread of the worker's main process.
`nxs probe` reads it: it asks no broker, and loads neither Celery nor the app, so it answers at
once, whatever is down. What is imported here is what the answer takes: no JSON, no data classes.

Alive is what a restart would not mend: a process that is there, not frozen, and whose event loop
turns. A broker that does not answer is nobody's death: as long as it is away, a worker waits for
it, and a restart would only have another one wait. Nor is a worker that is busy, however long, or
one that shuts down and lets its last tasks finish.
"""

from __future__ import annotations

import os

from nxs_tasks.folders import UP

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than all that is here
if TYPE_CHECKING:
    from typing import Any

#: Seconds between two writes.
PERIOD_S = 1.0
#: Without a write for so long, s, the process is frozen; or, before it is up, stuck.
FROZEN_AFTER_S, STUCK_START_AFTER_S = 15.0, 120.0
#: An event loop that has not turned for so long, s, stands still. It turns at least every 10 s.
STILL_AFTER_S = 30.0
#: Who has found no way to a broker that answers others for so long, s, never will. Celery tries
#: every 30 s.
LOST_AFTER_S = 300.0
#: In which states an instance is given work.
TAKES_WORK = ("ACTIVE", "DEGRADED")
#: Of a worker that is not an instance: the control worker.
CONTROL = "CONTROL"
STARTING = "STARTING"

_FOLDER = "alive"
_SUFFIX = ".sign"


class Sign:
    """One life sign. Times are the machine's monotonic clock, s; None = not, or not known."""

    node: str
    fleet: str
    pid: int
    process: str  # tells it from a later process with the same pid
    written: float
    state: str  # of the instance, as the broker said last; `STARTING`, `CONTROL`
    turned: float | None = None  # the event loop, last
    connected: bool = False  # the consumer has a connection
    occupied: bool = False  # its tasks run in the event loop itself, and one does
    answers_since: float | None = None  # the broker; None while it does not
    consuming: bool | None = None
    asked_s: float | None = None  # since the consumer asked for work
    running: int | None = None
    slots: int | None = None
    cordoned: str = ""  # who has taken it out of service, and why
    leaving: str = ""  # why it shuts down

    def __init__(self, **known: Any) -> None:
        """Raises `TypeError` for a field that there is not, or one that is missing."""
        unknown = known.keys() - _KINDS.keys()
        missing = [name for name in _KINDS if name not in known and not hasattr(Sign, name)]
        if unknown or missing:
            raise TypeError(f"unknown {sorted(unknown)}, missing {missing}")
        self.__dict__.update(known)

    def having(self, **changed: Any) -> Sign:
        """The same with some fields changed."""
        return Sign(**{**self.__dict__, **changed})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sign) and self.as_text() == other.as_text()

    __hash__ = None  # type: ignore[assignment]

    def as_text(self) -> str:
        """A line for each field that is known."""
        values = {name: getattr(self, name) for name in _KINDS}
        lines = [f"{name} {_shown(value)}\n" for name, value in values.items() if value is not None]
        return "".join(lines)


#: The fields of a sign, and what each is.
_KINDS: dict[str, type] = {
    "node": str, "fleet": str, "pid": int, "process": str, "written": float, "state": str,
    "turned": float, "connected": bool, "occupied": bool, "answers_since": float,
    "consuming": bool, "asked_s": float, "running": int, "slots": int, "cordoned": str,
    "leaving": str,
}  # fmt: skip


def _shown(value: object) -> str:
    # In one line, whatever somebody has given as a reason.
    return str(int(value)) if isinstance(value, bool) else " ".join(str(value).split())


def from_text(text: str) -> Sign:
    """The inverse of `Sign.as_text`; fields of a newer NXS are ignored. Raises `ValueError`."""
    known: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        kind = _KINDS.get(name)
        if kind is not None:
            known[name] = bool(int(value)) if kind is bool else kind(value)
    try:
        return Sign(**known)
    except TypeError as error:
        raise ValueError(str(error)) from None


class Verdict:
    """Why a worker is not live, and why it is not ready; "" = it is."""

    def __init__(self, not_live: str, not_ready: str) -> None:
        self.not_live = not_live
        self.not_ready = not_ready


class Unreadable(Exception):
    """A file is no life sign; the message names it."""


def folders(state: str) -> tuple[str, ...]:
    """Where the workers of this state directory leave their signs; those of `nxs up` too."""
    return os.path.join(state, _FOLDER), os.path.join(state, UP, _FOLDER)


def path_of(state: str, fleet: str, node: str) -> str:
    """The file of a worker."""
    from urllib.parse import quote  # slow to load, and only who writes needs it

    name = f"{quote(fleet, safe='')}~{quote(node, safe='@')}{_SUFFIX}"
    return os.path.join(state, _FOLDER, name)


def paths(state: str) -> list[str]:
    """All that are there."""
    found = []
    for folder in folders(state):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in names if name.endswith(_SUFFIX)]
    return found


def write(path: str, sign: Sign) -> None:
    """Replace the file in one step. Raises `OSError`; a full disk leaves it fresh all the same."""
    draft = f"{path}.{sign.pid}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(sign.as_text())
        os.replace(draft, path)
    except OSError:
        # What the file says may be old. That it is fresh says that its process is not frozen.
        if os.path.exists(path):
            os.utime(path)
        raise


def read(path: str) -> Sign:
    """The sign in a file. Raises `Unreadable`, `FileNotFoundError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return from_text(file.read())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} is no life sign of a worker: {error}") from None


def process_of(pid: int) -> str:
    """What tells a process from a later one with the same pid; "" where that cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The second field is a name, in brackets, which may hold anything.
            fields = file.read().rpartition(")")[2].split()
        return f"{boot}/{fields[19]}"
    except (OSError, IndexError):
        return ""


def is_there(sign: Sign) -> bool:
    """Whether its process is there."""
    try:
        os.kill(sign.pid, 0)
    except PermissionError:
        pass
    except OSError:
        return False
    now = process_of(sign.pid)
    return not (now and sign.process) or now == sign.process


def judge(sign: Sign, *, there: bool, now: float, touched_s: float | None = None) -> Verdict:
    """What a sign says at a time (monotonic, s); `there` is its process.

    `touched_s` is the age of its file by the wall clock, s, which may have been set since.
    """
    not_live = _why_not_live(sign, there, now, touched_s)
    return Verdict(not_live, not_live or _why_not_ready(sign, now))


def _why_not_live(sign: Sign, there: bool, now: float, touched_s: float | None) -> str:
    if not there:
        return f"its process {sign.pid} is gone"
    silent = now - sign.written
    if touched_s is not None and touched_s >= 0:
        silent = min(silent, touched_s)
    starts = sign.state == STARTING
    if silent > (STUCK_START_AFTER_S if starts else FROZEN_AFTER_S):
        what = "is stuck while it starts" if starts else "is frozen"
        return f"its process {sign.pid} {what}: no sign of life for {silent:.0f} s"
    return "" if starts or sign.leaving or sign.occupied else _why_still(sign)


def _why_still(sign: Sign) -> str:
    """Measured by when it was written: who writes and who reads need not be awake at one time."""
    if sign.answers_since is None:
        return ""
    answers = sign.written - sign.answers_since
    if not sign.connected:
        lost = answers > LOST_AFTER_S
        return f"it has no connection, and the broker answers since {answers:.0f} s" if lost else ""
    if sign.turned is None:
        return ""
    still = min(sign.written - sign.turned, answers)
    return f"its event loop stands still for {still:.0f} s" if still > STILL_AFTER_S else ""


def _why_not_ready(sign: Sign, now: float) -> str:
    if sign.state == STARTING:
        return "it starts"
    if sign.leaving:
        return f"it shuts down: {sign.leaving}"
    if sign.answers_since is None:
        return "the broker does not answer"
    if not sign.connected:
        return "it has no connection to the broker yet"
    if sign.state == CONTROL:
        return ""
    if sign.state not in TAKES_WORK:
        return f"it is {sign.state}"
    if sign.cordoned:
        return f"it is cordoned {sign.cordoned}"
    return "its consumer takes no work" if sign.consuming is False else ""
