"""Tells the heartbeat whether tasks go here as they should: `tenure.unhealthy`.

The second question that is asked at each look of `Ejecting`, from the same report. Ejection is for
what fails at once, and acts by itself; this one sees what is slow or fails now and then, and only
says so: the control plane makes it DEGRADED after `degraded_beats` such heartbeats.

Without the broker nothing is judged: the last verdict stays, and what ran meanwhile is neither
judged nor learnt, because an outage makes tasks slow everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from nxs_tasks.model.durations import Durations
from nxs_tasks.model.runs import Runs
from nxs_tasks.model.state import State
from nxs_tasks.policy.fleet.health import WELL, Verdict, asked, judge
from nxs_tasks.settings import Settings
from nxs_tasks.worker.tally import Ran
from nxs_tasks.worker.vitals import VitalSigns

log = logging.getLogger(__name__)

#: What others have told in a window that is shorter by so many heartbeats: they tell it later, and
#: while all become slow at once, it must not look as if it were this one alone.
LAG_BEATS = 3

#: How the tasks of some names went elsewhere, within so many s.
Ask = Callable[[Sequence[str], float], Mapping[str, Runs]]


class Health:
    """That of one process. `now` is monotonic time, s, everywhere. Used by one thread."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._signs = VitalSigns(settings.health_window, settings.health_runs, now)
        self._interrupted = False
        self.verdict = WELL

    def told(self, taken: Mapping[str, Ran]) -> dict[str, Runs]:
        """What is to be reported of what has ended: counts and ranks."""
        told = {}
        for name, ran in taken.items():
            took = Durations() if self._interrupted else ran.took.copy()
            ranked = self._signs.ranked(name, took)
            told[name] = Runs(ran.succeeded, ran.failed, ranked.ranked, ranked.ranks)
        return told

    def add(self, taken: Mapping[str, Ran], now: float) -> None:
        """What was reported."""
        if self._interrupted:
            self._signs.skip(now)
        else:
            self._signs.add(taken, now)
        self._interrupted = False

    def interrupt(self) -> None:
        """The broker was away."""
        self._interrupted = True

    def look(self, state: State, ask: Ask, now: float) -> str:
        """Judge and learn; what is wrong, "" if nothing is known to be. Raises what `ask` does.

        Only an instance that is ACTIVE and has no fault learns.
        """
        settings, signs = self._settings, self._signs
        vitals, span_s = signs.view(now)
        names = asked(vitals, self.verdict, settings)
        if names:
            lag_s = LAG_BEATS * settings.heartbeat_period
            told = ask(names, max(span_s / 2, span_s - lag_s))
            for name in names:
                vitals[name] = vitals[name].beside(told.get(name, Runs()))
        before, self.verdict = self.verdict, WELL
        if names or before.findings:
            self.verdict = judge(vitals, before, settings, now)
        well = state is State.ACTIVE and not self.verdict.faults
        signs.spoil(self.verdict.odd if well else None)
        signs.relearn(self.verdict.relearn)
        signs.learn(now)
        _note(before, self.verdict)
        return self.verdict.unhealthy


def _note(before: Verdict, after: Verdict) -> None:
    if after.unhealthy and not before.unhealthy:
        log.warning("tasks do not go here as they should: %s", after.unhealthy)
    elif before.unhealthy and not after.unhealthy:
        log.info("tasks go here again as they should")
