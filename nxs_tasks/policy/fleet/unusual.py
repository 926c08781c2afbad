"""What is unusual in how tasks go on one instance, beside its own past and beside others.

A name takes unusually long if all are so:

- it matters: the 95th percentile is above `latency_factor` × what it was, and by `latency_least`
  (the letter of spec 2.2; where several names are taken together: more than 5 % took longer than
  that of their own name);
- it is no chance: the mean rank of the runs among the earlier ones is so far above ½ as chance
  would have it once in ten million looks (Mann and Whitney). An estimate from 20 runs of a long
  tail doubles in one minute of twenty for nothing; ranks do not, whatever the distribution;
- it is more than a little: the ranks would also be high if all had taken longer before, by half of
  what `latency_factor` allows. Where one task in twenty is of a long kind, the percentile jumps
  from one kind to the other, and a load that comes and goes moves even durations far in rank.

The median counts as the 95th percentile does: where one task in twenty is of a long kind, that one
says nothing about the others.

It is the fault of the instance if the ranks of the same names elsewhere have not risen with it.
Others are asked only of what is unusual here, and can only acquit.

A name fails unusually often if the share that fails is above that of others by `error_rate`, and no
chance (the likelihood ratio of two binomials). If nobody else has run it, its own past is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from nxs_tasks.model.durations import Durations
from nxs_tasks.model.runs import Runs
from nxs_tasks.settings import Settings

#: What may not be so much longer: the 95th percentile, the median.
QUANTILES = (0.95, 0.5)
#: So far above ½, and above that of others, is a mean rank that matters; while it lasts half.
FAR = 0.1
#: So many standard deviations is a mean rank away by chance once in ten million looks, and one
#: that comes down again is not away any more.
SIGMAS, SIGMAS_STILL = 5.2, 2.0
#: By so many it is above that of others: they can only acquit.
SIGMAS_OTHERS = 3.5
#: Rarer than this is no chance.
CHANCE = 1e-7
#: Fewest earlier runs, and runs elsewhere, that something is compared with.
KNOWN, EVIDENCE = 100, 10
#: Names that run too rarely to be judged alone and are taken together, the busiest first.
TOGETHER = 12


#: How long nothing took.
NONE = Durations()


@dataclass(frozen=True, slots=True)
class Past:
    """How the tasks of one name went here before; the counts fade, so they may be fractions."""

    took: Durations
    ran: float = 0.0
    failed: float = 0.0


@dataclass(frozen=True, slots=True)
class Vital:
    """How the tasks of one name go: here lately, here before (None = not known yet), elsewhere."""

    here: Runs
    took: Durations  # of those of `here` that have a duration
    past: Past | None = None
    elsewhere: Runs | None = None  # None = not asked

    @property
    def usual(self) -> Durations:
        """How long it took before."""
        return self.past.took if self.past is not None else NONE

    @property
    def comparable(self) -> bool:
        """Whether it is known how long it took before."""
        return self.usual.count >= KNOWN

    def beside(self, elsewhere: Runs) -> Vital:
        """The same, with what others told."""
        return replace(self, elsewhere=elsewhere)

    @property
    def shared(self) -> bool:
        """Whether others are known to run it."""
        return self.elsewhere is not None and self.elsewhere.all > 0


Vitals = Mapping[str, Vital]


class Kind(StrEnum):
    """What may be unusual."""

    SLOW = "slow"
    FAILS = "fails"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What enough runs say about some names. `begins` is strict, `lasts` is what keeps it."""

    kind: Kind
    names: tuple[str, ...]
    begins: bool  # unusual beside the past
    lasts: bool
    here: bool  # and not so elsewhere; with nobody else: True
    still_here: bool
    everywhere: bool  # known to be so elsewhere too
    alone: bool  # nobody else has run any of them
    words: str


def signs(vitals: Vitals, settings: Settings) -> list[Sign]:
    """One for each name of which enough ran, of each kind, and one for the rare ones together."""
    least = settings.health_runs
    known = {name: vital for name, vital in sorted(vitals.items()) if vital.comparable}
    found = [_slow((n,), vitals, settings) for n, v in known.items() if v.took.count >= least]
    rare = rare_ones(vitals, settings)
    if sum(vitals[name].took.count for name in rare) >= least:
        found.append(_slow(rare, vitals, settings))
    for name, vital in sorted(vitals.items()):
        if vital.here.all >= least:
            found.append(_fails(name, vital, settings))
    return found


def rare_ones(vitals: Vitals, settings: Settings) -> tuple[str, ...]:
    """The names that are taken together: those that others run too, if there are any."""
    found = [n for n, v in vitals.items() if v.comparable and v.took.count < settings.health_runs]
    some = [n for n in found if vitals[n].shared] or found
    return tuple(sorted(some, key=lambda name: (-vitals[name].took.count, name))[:TOGETHER])


def _slow(names: tuple[str, ...], vitals: Vitals, settings: Settings) -> Sign:
    of = [vitals[name] for name in names]
    alone, others = not any(v.shared for v in of), _others(of)
    still = _quantile_above(of, settings, still=True)
    above = _quantile_above(of, settings) if still is not None else None
    # Of what is not too long no ranks are needed: that is nearly always so.
    count, away, sigma = _away(of) if still is not None else (1.0, 0.0, 1.0)
    factor = settings.latency_factor
    more = above is not None and _away(of, (1 + factor) / 2)[1] >= SIGMAS_STILL * sigma
    still_more = still is not None and _away(of, (3 + factor) / 4)[1] >= 0
    apart = away + 0.5 - others.rank
    sigma_others = math.sqrt((1 / count + 1 / max(1, others.ranked)) / 12)
    sure = others.ranked >= EVIDENCE and apart >= SIGMAS_OTHERS * sigma_others
    share = above or still
    words = f"{_longer(names, of, share)}; {_where(alone, others)}" if share is not None else ""
    return Sign(
        kind=Kind.SLOW,
        names=names,
        begins=more and away >= FAR and away >= SIGMAS * sigma,
        lasts=still_more and away >= FAR / 2 and away >= SIGMAS_STILL * sigma,
        here=alone or (sure and apart >= FAR),
        still_here=alone or others.ranked < EVIDENCE or apart >= FAR / 2,
        everywhere=others.ranked >= EVIDENCE and others.rank >= 0.5 + FAR / 2,
        alone=alone,
        words=words,
    )


def _away(of: Iterable[Vital], times: float = 1.0) -> tuple[float, float, float]:
    """How many ran, how far their mean rank is above ½, and the standard deviation of that.

    Among the earlier ones as if those had taken so many times longer.
    """
    count, ranks, spread = 0.0, 0.0, 0.0
    for vital in of:
        ran = vital.took.count
        count += ran
        ranks += vital.usual.longer(times).ranks_of(vital.took)
        # A rank is even between 0 and 1; the past is a sample too.
        spread += ran * (1 + ran / vital.usual.count) / 12
    return count, ranks / count - 0.5, math.sqrt(spread) / count


def _others(of: Iterable[Vital]) -> Runs:
    """How these rank elsewhere, each name weighed by how much of it ran here."""
    count, ranks, ranked = 0.0, 0.0, 0
    for vital in of:
        if vital.elsewhere is not None and vital.elsewhere.ranked:
            count += vital.took.count
            ranks += vital.took.count * vital.elsewhere.rank
            ranked += vital.elsewhere.ranked
    return Runs(ranked=ranked, ranks=ranked * ranks / count) if count else Runs()


def _where(alone: bool, others: Runs) -> str:
    if alone:
        return "nobody else runs it"
    if others.ranked < EVIDENCE:
        return "elsewhere it is not known"
    return "elsewhere as before" if others.rank < 0.5 + FAR / 2 else "elsewhere less so"


def _allowed(usual: float, settings: Settings, still: bool = False) -> float:
    """How long it may take, s."""
    factor, least = settings.latency_factor, settings.latency_least
    if still:
        factor, least = (1 + factor) / 2, least / 2
    return max(factor * usual, usual + least)


def _quantile_above(of: list[Vital], settings: Settings, still: bool = False) -> float | None:
    """The quantile that is longer than it may be; None if none is."""
    count = sum(v.took.count for v in of)
    for share in QUANTILES:
        over = sum(
            v.took.above(_allowed(v.usual.quantile(share) or 0.0, settings, still)) for v in of
        )
        if over > (1 - share) * count:
            return share
    return None


def _longer(names: tuple[str, ...], of: list[Vital], share: float) -> str:
    vital = max(of, key=lambda v: v.took.count)
    name = names[of.index(vital)]
    now, before = seconds(vital.took.quantile(share)), seconds(vital.usual.quantile(share))
    of_what = "median" if share == 0.5 else f"p{100 * share:.0f}"
    told = f"{name} takes {now} ({of_what} of {vital.took.count:.0f}), {before} before"
    if len(names) == 1:
        return told
    count = sum(v.took.count for v in of)
    return f"{count:.0f} tasks of {len(names)} names take longer than before, such as {told}"


def _fails(name: str, vital: Vital, settings: Settings) -> Sign:
    here, others, past = vital.here, vital.elsewhere, vital.past
    failed, ran, words = 0.0, 0.0, ""
    if others is not None and others.all:
        failed, ran = others.failed, others.all
        words = f"{others.failed} of {others.all} elsewhere"
    elif past is not None and past.ran >= KNOWN:
        failed, ran = past.failed, past.ran
        words = f"{100 * failed / ran:.0f} % before; nobody else runs it"
    usual = failed / ran if ran else 0.0
    more = here.failing - usual
    begins = ran > 0 and more > settings.error_rate
    begins = begins and by_chance(here.failed, here.all, failed, ran) <= CHANCE
    return Sign(
        kind=Kind.FAILS,
        names=(name,),
        begins=begins,
        lasts=ran > 0 and more > settings.error_rate / 2,
        here=True,
        still_here=True,
        everywhere=False,
        alone=not vital.shared,
        words=f"{name} fails {here.failed} times of {here.all} here, {words}",
    )


def by_chance(failed: float, ran: float, theirs: float, of_theirs: float) -> float:
    """How likely two shares differ so much though both are the same (likelihood ratio, Wilks)."""
    share = (failed + theirs) / (ran + of_theirs)
    apart = ran * _apart(failed / ran, share) + of_theirs * _apart(theirs / of_theirs, share)
    return math.exp(-apart)


def _apart(share: float, other: float) -> float:
    """Kullback-Leibler divergence of two binomials, nats."""
    parts = ((share, other), (1 - share, 1 - other))
    return sum(p * math.log(p / q) for p, q in parts if p > 0)


def asked_of(vitals: Vitals, settings: Settings) -> set[str]:
    """Names about which others are to be asked: what might be unusual here, judged alone."""
    found = {n for sign in signs(vitals, settings) if sign.begins for n in sign.names}
    # What always fails here does so beside others only.
    return found | {
        name
        for name, vital in vitals.items()
        if vital.here.all >= settings.health_runs and vital.here.failing > settings.error_rate
    }


def seconds(value: float | None) -> str:
    """A duration in words: `24 ms`, `2.4 s`, `140 s`."""
    if value is None:
        return "an unknown time"
    if value < 0.1:
        return f"{1000 * value:.1f} ms" if value < 0.01 else f"{1000 * value:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
