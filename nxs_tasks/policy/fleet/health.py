"""Whether tasks go on an instance as they should: what its heartbeats tell as `unhealthy`.

Each look judges the last `health_window` by the signs of `unusual.py`. What is unusual here and not
elsewhere is a fault of the instance, and the reason says it with figures. Then:

- A fault lasts until enough runs say that it is over, by milder limits than those by which it began
  (half of `error_rate`; halfway back to what was usual). Fewer than `health_runs` say nothing: the
  verdict stays, and fades `FADES` windows after it was last confirmed.
- What has become slow elsewhere too is no fault. If it is over elsewhere and not here, it is one
  after `REACH` windows: by then nothing is looked at that ran while it was slow for all.
- A name that nobody else has run lately is judged by its own past, and only while no name here that
  others run too goes as it should: then the instance is well, and that task or what it needs is
  not. After `BELIEVED` windows without anybody to compare with, what was unusual is what is usual
  now, and the past is learnt anew: an instance alone must not stay DEGRADED because its tasks have
  more to do. The same holds for what is slow everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nxs_tasks.policy.fleet.unusual import TOGETHER, Kind, Sign, Vitals, asked_of, signs
from nxs_tasks.settings import Settings

#: So many windows at most are looked back where little runs.
REACH = 5
#: A verdict that no run confirms ends after so many windows.
FADES = 5
#: After so many, what cannot be compared or is so everywhere is what is usual now.
BELIEVED = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something unusual that lasts."""

    kind: Kind
    names: tuple[str, ...]
    fault: bool  # of the instance; else it is so elsewhere too
    alone: bool  # judged by its own past alone
    since: float  # monotonic, s
    everywhere_at: float | None  # when it was last so elsewhere too, monotonic, s; None = never
    seen_at: float  # when it was confirmed last, monotonic, s
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is unusual, and what is usual again by now."""

    findings: tuple[Finding, ...] = ()
    relearn: frozenset[str] = frozenset()

    @property
    def faults(self) -> list[Finding]:
        """What is the instance's own, the oldest first."""
        return sorted((f for f in self.findings if f.fault), key=lambda f: (f.since, f.names))

    @property
    def unhealthy(self) -> str:
        """What the heartbeat says: the first fault in words; "" if there is none."""
        faults = self.faults
        if not faults:
            return ""
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return f"{faults[0].words}{more}"

    @property
    def odd(self) -> frozenset[str]:
        """Names from which nothing is to be learnt now."""
        return frozenset(name for finding in self.findings for name in finding.names)


WELL = Verdict()


def asked(vitals: Vitals, before: Verdict, settings: Settings) -> tuple[str, ...]:
    """Names about which others are to be asked; mostly none.

    If something seems to be wrong, also some that run here beside it.
    """
    wanted = (asked_of(vitals, settings) | before.odd) & vitals.keys()
    if not wanted:
        return ()
    beside = sorted(vitals.keys() - wanted, key=lambda name: (-vitals[name].here.all, name))
    return (*sorted(wanted), *beside[:TOGETHER])


def judge(vitals: Vitals, before: Verdict, settings: Settings, now: float) -> Verdict:
    """The verdict; others have told of the names that `asked` gave. `now` is monotonic, s."""
    seen = signs(vitals, settings)
    well = {sign.kind for sign in seen if not sign.alone and not (sign.lasts and sign.here)}
    # Of a name alone it counts only what nothing contradicts.
    counted = [
        replace(sign, here=False, still_here=False) if sign.alone and sign.kind in well else sign
        for sign in seen
    ]
    kept = [f for old in before.findings if (f := _still(old, counted, settings, now)) is not None]
    known = {(f.kind, name) for f in kept for name in f.names}
    kept += [
        _begun(sign, now)
        for sign in counted
        if sign.begins and not all((sign.kind, name) in known for name in sign.names)
    ]
    over = BELIEVED * settings.health_window
    usual = {f for f in kept if now - f.since >= over and (f.alone or not f.fault)}
    return Verdict(
        tuple(f for f in kept if f not in usual),
        frozenset(name for finding in usual for name in finding.names),
    )


def _begun(sign: Sign, now: float) -> Finding:
    return Finding(
        kind=sign.kind,
        names=sign.names,
        fault=sign.here,
        alone=sign.alone,
        since=now,
        everywhere_at=now if sign.everywhere else None,
        seen_at=now,
        words=sign.words,
    )


def _still(old: Finding, seen: Sequence[Sign], settings: Settings, now: float) -> Finding | None:
    """What has become of a finding; None if it is over."""
    about = [s for s in seen if s.kind is old.kind and not set(s.names).isdisjoint(old.names)]
    if not about:
        fades = now - old.seen_at > FADES * settings.health_window
        return None if fades else old
    lasting = [sign for sign in about if sign.lasts]
    if not lasting:
        return None
    sign = max(lasting, key=lambda s: (s.still_here, s.names == old.names))
    everywhere_at = now if sign.everywhere else old.everywhere_at
    past = everywhere_at is None or now - everywhere_at > REACH * settings.health_window
    return replace(
        old,
        fault=sign.still_here if old.fault else sign.begins and sign.here and past,
        alone=sign.alone,
        everywhere_at=everywhere_at,
        seen_at=now,
        words=sign.words,
    )
