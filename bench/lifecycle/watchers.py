"""How others would judge the same heartbeats: fixed time-out, phi-accrual, Kubernetes.

They look when NXS does, and only watch. Each tells of whom it gives up; a node that is heard again
is taken back. What NXS has with its store (one clock, one look) they do not: a time-out is kept by
the observer's own clock, which may be stepped, and an observer that was stalled looks at its clock
before it has read what came meanwhile. Kubernetes reads leases from its server, as NXS does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Protocol

#: Fixed time-out, s.
TIMEOUT_S = 30.0
#: Pekko's failure detector; the window is its `max-sample-size`.
THRESHOLD, LEAST_STD_S, PAUSE_S, WINDOW = 8.0, 0.1, 3.0, 1000
#: The same pause for a heartbeat of 5 s: Pekko's is 1 s.
LONG_PAUSE_S = 5 * PAUSE_S
#: Kubernetes' node controller.
NOT_READY_S, EVICTED_S, EVICTIONS_PER_S, STOPPED_SHARE = 40.0, 300.0, 0.1, 0.55


@dataclass(frozen=True, slots=True)
class Look:
    """One look of an observer. All times are true ones, s."""

    at: float
    heard: dict[str, list[float]]  # when heartbeats came since the last look, by node
    new: frozenset[str] = frozenset()  # nodes with a process that they had not at the last look
    readable: bool = True  # the server answers


class Watcher(Protocol):
    """Judges one fleet."""

    @property
    def out(self) -> Iterable[str]:
        """Whom it gives no work now."""

    @property
    def dead(self) -> Iterable[str]:
        """Whom it has given up now."""

    def read(self, look: Look) -> None:
        """Take in what came. An observer that was stalled does so after it has judged."""

    def judge(self, look: Look) -> None:
        """Judge."""


class Clock:
    """The observer's own, which somebody sets."""

    def __init__(self, steps: Iterable[tuple[float, float]] = ()) -> None:
        self._steps = sorted(steps)

    def __call__(self, at: float) -> float:
        """What it shows at a true time, s."""
        if not self._steps:
            return at
        return at + sum(by for when, by in self._steps if when <= at)


class Timeout:
    """Who was not heard for `TIMEOUT_S` is dead."""

    def __init__(self, names: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._heard = dict.fromkeys(names, 0.0)
        self.out: set[str] = set()

    @property
    def dead(self) -> set[str]:
        """The same: it knows nothing between."""
        return self.out

    def read(self, look: Look) -> None:
        """Stamp each heartbeat with the own clock."""
        for name, times in look.heard.items():
            if times:
                self._heard[name] = self._clock(times[-1])

    def judge(self, look: Look) -> None:
        """Judge by the own clock."""
        now, heard = self._clock(look.at), self._heard
        self.out = {name for name in heard if now - heard[name] > TIMEOUT_S}


class Intervals:
    """Between the heartbeats of each node, for all who judge by them."""

    def __init__(self, names: Iterable[str], period_s: float) -> None:
        self._period_s = period_s
        self._of = {name: _Intervals(period_s) for name in names}
        self._read: Look | None = None
        #: When each was heard last, s.
        self.last: dict[str, float] = {}

    def read(self, look: Look) -> None:
        """What a look brought; once, whoever asks."""
        if look is self._read:
            return
        self._read = look
        for name in look.new:
            # Another process: it is another node to Pekko.
            self._of[name] = _Intervals(self._period_s)
        for name, times in look.heard.items():
            if times:
                add = self._of[name].add
                for at in times:
                    add(at)
                self.last[name] = times[-1]

    def longest(self, name: str) -> float:
        """The longest interval that is believed, without the pause, s."""
        return self._of[name].longest()


class Phi:
    """The accrual detector: a time-out that follows the mean and the spread of the intervals.

    Pekko's approximation of the normal distribution makes of its threshold a number of standard
    deviations beyond the mean and the pause. Its clock is monotonic.
    """

    def __init__(self, intervals: Intervals, pause_s: float = PAUSE_S) -> None:
        self._intervals = intervals
        self._pause_s = pause_s
        self.out: set[str] = set()

    @property
    def dead(self) -> set[str]:
        """The same: it knows nothing between."""
        return self.out

    def read(self, look: Look) -> None:
        """Learn the intervals."""
        self._intervals.read(look)

    def judge(self, look: Look) -> None:
        """Judge by them."""
        soonest = look.at - self._pause_s
        late = [name for name, last in self._intervals.last.items() if last < soonest]
        self.out = {name for name in late if self._is_out(name, soonest)}

    def _is_out(self, name: str, at: float) -> bool:
        return at - self._intervals.last[name] > self._intervals.longest(name)


def _deviations(threshold: float) -> float:
    """How many make a phi of so much: y (1.5976 + 0.070566 y²) = ln(10^phi - 1)."""
    wanted, low, high = log(10.0**threshold - 1.0), 0.0, 100.0
    while high - low > 1e-9:
        y = (low + high) / 2
        low, high = (y, high) if y * (1.5976 + 0.070566 * y * y) < wanted else (low, y)
    return low


DEVIATIONS = _deviations(THRESHOLD)


class _Intervals:
    """The last ones of one node. It begins as Pekko does: with a mean and a spread of a quarter."""

    def __init__(self, period_s: float) -> None:
        first = (period_s - period_s / 4, period_s + period_s / 4)
        self._last: float | None = None
        self._known = deque(first)
        self._sum, self._squares = sum(first), sum(x * x for x in first)

    def add(self, at: float) -> None:
        """A heartbeat came."""
        last, self._last = self._last, at
        if last is None:
            return
        interval = at - last
        self._known.append(interval)
        self._sum += interval
        self._squares += interval * interval
        if len(self._known) > WINDOW:
            old = self._known.popleft()
            self._sum -= old
            self._squares -= old * old

    def longest(self) -> float:
        """The interval at which phi is `THRESHOLD`, s."""
        count = len(self._known)
        mean = self._sum / count
        variance = max(0.0, self._squares / count - mean**2)
        return mean + DEVIATIONS * max(LEAST_STD_S, sqrt(variance))


class Kubernetes:
    """NotReady after 40 s, evicted 5 min later, one in 10 s, and none while 55 % are not ready."""

    def __init__(self, names: Iterable[str]) -> None:
        self._seen = dict.fromkeys(names, 0.0)
        self._since: dict[str, float] = {}
        self._evicted_at = -inf
        self.dead: set[str] = set()

    @property
    def out(self) -> Iterable[str]:
        """Those that are NotReady."""
        return self._since.keys()

    def read(self, look: Look) -> None:
        """Nothing: it reads when it judges."""

    def judge(self, look: Look) -> None:
        """Judge. It stamps a lease that has changed with its own time, which is monotonic."""
        if not look.readable:
            return
        for name, times in look.heard.items():
            if times:
                self._seen[name] = look.at
                self._since.pop(name, None)
                self.dead.discard(name)
        for name, seen in self._seen.items():
            if look.at - seen > NOT_READY_S:
                self._since.setdefault(name, look.at)
        if self._since and len(self._since) < STOPPED_SHARE * len(self._seen):
            self._evict(look.at)

    def _evict(self, at: float) -> None:
        for name, since in sorted(self._since.items(), key=lambda item: item[1]):
            if name in self.dead or at - since < EVICTED_S:
                continue
            if at - self._evicted_at < 1.0 / EVICTIONS_PER_S:
                return
            self._evicted_at = at
            self.dead.add(name)
