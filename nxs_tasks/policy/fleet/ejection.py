"""Whether an instance whose tasks fail is to take no work for a while: a black hole.

One that fails each task in a moment always has a free slot, so it would get most of the work. It is
ejected (Envoy's outlier detection) if

- `eject_failures` tasks in a row have failed here, of names that go well elsewhere, or
- of at least `RUNS` tasks in the last minutes, of names that others run too, so many more have
  failed here than there would have elsewhere as `FAR` of all.

A name that fails everywhere is the task's fault, and one that nobody else has run lately proves
nothing. The first time is `eject_s`; each further one that much longer, up to `LONGEST` times, and
one less for each such time that went well. How many may be ejected at a time is checked where it is
done (`eject.lua`): at most a tenth of the fleet, or one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from nxs_tasks.model.decision import Eject, Evidence, Nothing
from nxs_tasks.model.instance import Instance
from nxs_tasks.settings import Settings

#: Fewest runs elsewhere that say how a name goes there, and the share of them that goes well.
EVIDENCE, WELL = 3, 0.5
#: Fewest runs here of which a share is taken, and how much more of them must have failed.
RUNS, FAR = 20, 0.5
#: For so long after an ejection no share is taken, s: the minutes before it are still counted.
WINDOW_S = 120.0
#: Most times `eject_s`.
LONGEST = 10


@dataclass(frozen=True, slots=True)
class Runs:
    """Ends of the tasks of one name in the last minutes."""

    succeeded: int = 0
    failed: int = 0

    @property
    def all(self) -> int:
        """How many ended."""
        return self.succeeded + self.failed

    @property
    def failing(self) -> float:
        """Share that failed; 0 of none."""
        return self.failed / self.all if self.all else 0.0


NO_RUNS = Runs()


def judge(
    instance: Instance,
    failing: Sequence[str],
    here: Mapping[str, Runs],
    elsewhere: Mapping[str, Runs],
    settings: Settings,
    now: float,
) -> Eject | Nothing:
    """What becomes of an instance; `now` is the server's time, s.

    `failing` are the names of the tasks that failed since its last success, `here` and `elsewhere`
    what ended on it and on all others in the last minutes, by name.
    """
    only_here = [name for name in failing if _goes_well(elsewhere.get(name, NO_RUNS))]
    if len(only_here) >= settings.eject_failures:
        names = sorted(set(only_here))
        reason = (
            f"{len(only_here)} tasks in a row failed here that go well elsewhere: "
            + ", ".join(names)
        )
        return _eject(instance, reason, {"in_a_row": len(only_here), "tasks": names}, settings, now)
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
        reason=_why_not(failing, elsewhere),
    )


def _goes_well(runs: Runs) -> bool:
    return runs.all >= EVIDENCE and runs.succeeded >= WELL * runs.all


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


def _why_not(failing: Sequence[str], elsewhere: Mapping[str, Runs]) -> str:
    if not failing:
        return "what fails here fails elsewhere too"
    runs = elsewhere.get(failing[-1], NO_RUNS)
    if runs.all < EVIDENCE:
        return f"nobody else has run {failing[-1]} lately: no fault of this instance"
    return f"{failing[-1]} fails elsewhere too: {runs.failed} of {runs.all}"
