"""Whether an instance whose tasks fail is to take no work for a while: a black hole.

One that fails each task in a moment always has a free slot, so it would get most of the work. It is
ejected (Envoy's outlier detection) if

- `eject_failures` tasks in a row have failed here, of one name or with no success at all between
  them, and by chance that would be rarer than `CHANCE`, at the rates at which these names failed
  elsewhere since the first of them; or
- of at least `RUNS` tasks in the last minute, of names that failed here and that others run too, so
  many more have failed than there would have elsewhere as `FAR` of all.

A name that fails everywhere is the task's fault, and one that nobody else has run meanwhile proves
nothing. It is "since the first of them" because what a task needs may have gone away for all just
then.

The first time is `eject_s`; each further one that much longer, up to `LONGEST` times, and one less
for each such time that went well. How many may be ejected at a time is checked where it is done
(`eject.lua`): at most a tenth of the fleet, or one, and never the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, prod

from nxs_tasks.model.decision import Eject, Evidence, Nothing
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.runs import NO_RUNS, Runs
from nxs_tasks.settings import Settings

#: Fewest runs elsewhere that say how a name goes there.
EVIDENCE = 5
#: A name of which this share fails elsewhere does not count in a row of several names.
MOSTLY = 0.5
#: Rarer than this is no chance.
CHANCE = 1e-5
#: Fewest runs here of which a share is taken, and how much more of them must have failed.
RUNS, FAR = 20, 0.5
#: For so long after an ejection no share is taken, s: the minutes before it are still counted.
WINDOW_S = 120.0
#: Most times `eject_s`.
LONGEST = 10


@dataclass(frozen=True, slots=True)
class Failing:
    """Failures of an instance since its last success: by name, and of all names in their order.

    `elsewhere` is what ended on all others since the first of each name.
    """

    rows: Mapping[str, int]
    tail: Sequence[str]
    elsewhere: Mapping[str, Runs]

    def worst(self, least: int) -> tuple[str, int] | None:
        """The names and the length of a row of at least so many that is no chance."""
        for name, count in sorted(self.rows.items()):
            if count >= least and self._chance([name] * count) <= CHANCE:
                return name, count
        # What mostly fails elsewhere says nothing here.
        known = [name for name in self.tail if self._goes(name).failing < MOSTLY]
        known = [name for name in known if self._goes(name).all >= EVIDENCE]
        if len(known) >= least and self._chance(known) <= CHANCE:
            return ", ".join(sorted(set(known))), len(known)
        return None

    def why_not(self) -> str:
        """Why its longest row is no fault of the instance."""
        if not self.rows:
            return "what fails here fails elsewhere too"
        name = max(sorted(self.rows), key=lambda name: self.rows[name])
        runs = self._goes(name)
        if runs.all < EVIDENCE:
            return f"hardly anybody else has run {name} meanwhile: no fault of this instance"
        return f"{name} fails elsewhere too: {runs.failed} of {runs.all}"

    def _goes(self, name: str) -> Runs:
        return self.elsewhere.get(name, NO_RUNS)

    def _chance(self, names: Sequence[str]) -> float:
        """How likely it is that all of these fail."""
        goes = [self._goes(name) for name in names]
        if any(runs.all < EVIDENCE for runs in goes):
            return 1.0
        # Half a failure more, so that a rate of which little is known is none of zero.
        return prod((runs.failed + 0.5) / (runs.all + 1.0) for runs in goes)


def judge(
    instance: Instance,
    failing: Failing,
    here: Mapping[str, Runs],
    elsewhere: Mapping[str, Runs],
    settings: Settings,
    now: float,
) -> Eject | Nothing:
    """What becomes of an instance; `now` is the server's time, s.

    `here` and `elsewhere` are what ended in the last minute on it and on all others, of the names
    that failed here.
    """
    worst = failing.worst(settings.eject_failures)
    if worst is not None:
        names, count = worst
        reason = f"{count} tasks in a row failed here that go well elsewhere: {names}"
        return _eject(instance, reason, {"in_a_row": count, "tasks": names}, settings, now)
    known = {
        name: runs for name, runs in here.items() if elsewhere.get(name, NO_RUNS).all >= EVIDENCE
    }
    ran = sum(runs.all for runs in known.values())
    failed = sum(runs.failed for runs in known.values())
    expected = sum(runs.all * elsewhere[name].failing for name, runs in known.items())
    counts = now - instance.ejected_until >= WINDOW_S
    if counts and ran >= RUNS and failed - expected >= FAR * ran:
        reason = f"{failed} of {ran} tasks failed here, {expected:.0f} would have elsewhere"
        evidence = {"ran": ran, "failed": failed, "expected": round(expected, 1)}
        return _eject(instance, reason, evidence, settings, now)
    return Nothing(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        reason=failing.why_not(),
    )


def _eject(
    instance: Instance, reason: str, evidence: Evidence, settings: Settings, now: float
) -> Eject:
    healthy_s = max(0.0, now - instance.ejected_until) if instance.ejected_until else 0.0
    before = max(0, instance.ejections - floor(healthy_s / settings.eject_s))
    times = min(LONGEST, before + 1)
    return Eject(
        instance=instance.id,
        epoch=instance.epoch,
        source=instance.state,
        times=times,
        seconds=times * settings.eject_s,
        reason=reason,
        evidence=evidence,
    )
