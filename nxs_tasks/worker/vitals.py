"""How the tasks of this worker go lately, and how they usually went: both by name, in its memory.

Between two looks lies a period, and the periods of the last `health_window` are what is judged. If
fewer than `health_runs` ended in them, earlier ones are added, of `REACH` windows in all at most. A
period that is older is learnt, into the past of each name, unless something was wrong meanwhile: so
a brown-out that is found by then has taught nothing. The past moves slowly: what was
learnt counts half after `HALF` windows in which the name ran, an hour. A slow-down that takes hours
is not found here, therefore.

The first runs of a name import, connect and fill caches: its first `WARM_UP` runs, and its first
window, are neither learnt nor judged. A name is judged by its past when that spans `GROWN` windows.
All of it lives in the process: after a restart it is learnt anew, for some minutes nothing is
known, and what is slow from its start on is usual.

Memory is bounded: a window of periods, and some dozen buckets for each name of a task. Used by one
thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nxs_tasks.model.durations import Durations
from nxs_tasks.model.runs import Runs
from nxs_tasks.policy.fleet.health import REACH
from nxs_tasks.policy.fleet.unusual import KNOWN, Past, Vital
from nxs_tasks.store.runs import FARTHEST_S
from nxs_tasks.worker.tally import Ran

#: What was learnt counts half after so many windows.
HALF = 60
#: So many runs of a name are its first.
WARM_UP = 20
#: A past that spans so many windows is one.
GROWN = 2


@dataclass(slots=True)
class _Period:
    """What ended between two looks, by name; nothing is learnt from those that are `spoilt`."""

    began: float
    ended: float
    ran: Mapping[str, Ran]
    spoilt: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Usual:
    """The past of one name."""

    since: float
    until: float = 0.0
    took: Durations = field(default_factory=Durations)
    ran: float = 0.0
    failed: float = 0.0

    def learn(self, ran: Ran, weight: float) -> None:
        """Also this; what is there counts so much less."""
        self.took.fade(weight)
        self.took.merge(ran.took)
        self.ran = weight * self.ran + ran.succeeded + ran.failed
        self.failed = weight * self.failed + ran.failed


class VitalSigns:
    """Those of one process. `now` is monotonic time, s, everywhere."""

    def __init__(self, window_s: float, least: int, now: float) -> None:
        """The window, s, and how many runs it should hold."""
        self._window_s = window_s
        self._reach_s = max(window_s, min(REACH * window_s, FARTHEST_S))
        self._least = least
        self._ended = now
        self._periods: deque[_Period] = deque()
        self._usual: dict[str, _Usual] = {}
        #: By name, when it ran first, and how often since.
        self._first: dict[str, tuple[float, int]] = {}

    def add(self, taken: Mapping[str, Ran], now: float) -> None:
        """What has ended since the last call."""
        warm = {
            name: self._seen(ran) for name, ran in taken.items() if self._is_warm(name, ran, now)
        }
        self._periods.append(_Period(self._ended, now, warm))
        self._ended = now

    def _is_warm(self, name: str, ran: Ran, now: float) -> bool:
        began, count = self._first.get(name, (self._ended, 0))
        self._first[name] = began, count + ran.all
        return count >= WARM_UP and self._ended - began >= self._window_s

    @staticmethod
    def _seen(ran: Ran) -> Ran:
        # The main thread may still be adding to it.
        return Ran(max(0, ran.succeeded), max(0, ran.failed), ran.took.copy())

    def skip(self, now: float) -> None:
        """Forget the window: what ran meanwhile says nothing about this instance."""
        self._periods.clear()
        self._ended = now

    def spoil(self, names: Iterable[str] | None = None) -> None:
        """Nothing is to be learnt from what the window holds: of these names, or of any (None)."""
        for period in self._periods:
            period.spoilt.update(period.ran if names is None else names)

    def relearn(self, names: Iterable[str]) -> None:
        """Forget the past of these names."""
        for name in names:
            self._usual.pop(name, None)

    def learn(self, now: float) -> None:
        """Learn from what has left the window."""
        while self._periods and now - self._periods[0].began > self._reach_s:
            period = self._periods.popleft()
            weight = 0.5 ** ((period.ended - period.began) / (HALF * self._window_s))
            for name, ran in period.ran.items():
                if name not in period.spoilt:
                    usual = self._usual.setdefault(name, _Usual(period.began))
                    usual.learn(ran, weight)
                    usual.until = period.ended

    def view(self, now: float) -> tuple[dict[str, Vital], float]:
        """How each name goes that ran in the window, and how far that reaches back, s."""
        ended: dict[str, Ran] = {}
        began, count = now, 0.0
        for period in reversed(self._periods):
            if now - period.began > self._window_s and count >= self._least:
                break
            began = period.began
            for name, ran in period.ran.items():
                ended.setdefault(name, Ran()).add(ran)
                count += ran.took.count
        vitals = {
            name: Vital(Runs(ran.succeeded, ran.failed), ran.took, self._past(name))
            for name, ran in ended.items()
        }
        return vitals, now - began

    def _past(self, name: str) -> Past | None:
        usual = self._usual.get(name)
        if usual is None or usual.until - usual.since < GROWN * self._window_s:
            return None
        return Past(usual.took, usual.ran, usual.failed)

    def ranked(self, name: str, took: Durations) -> Runs:
        """How some runs of a name rank in its past; none do before there is one."""
        past = self._past(name)
        if past is None or past.took.count < KNOWN:
            return Runs()
        return Runs(ranked=round(took.count), ranks=past.took.ranks_of(took))
