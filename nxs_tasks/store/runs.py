"""How tasks ended in the last minutes, by name: what ejections and health are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nxs_tasks.errors import Stale
from nxs_tasks.model.decision import Eject
from nxs_tasks.model.runs import Runs
from nxs_tasks.store.store import FleetStore

#: Ends are counted by periods of so long, s, which are kept for so long, s.
PERIOD_S, KEPT_S = 5, 320
#: Nobody looks back further than this, s.
FARTHEST_S = 300.0
#: Ranks are counted in thousandths, as whole numbers.
RANK = 1000
#: What is counted of each name: successes, failures, ranks and how many have one.
KINDS = 4
#: Share of the fleet that may be ejected at a time; one instance always may.
MOST_EJECTED = 0.1


class TooManyEjected(Stale):
    """So many instances are ejected that one more must not be."""


@dataclass(frozen=True, slots=True)
class Recent:
    """By name, what ended on one instance and on all others; `now` is the server's time, s."""

    now: float
    here: Mapping[str, Runs]
    elsewhere: Mapping[str, Runs]


class RecentRuns:
    """Those of one fleet. Every method raises `BrokerError`."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def report(self, instance: str, runs: Mapping[str, Runs]) -> None:
        """Add, for each name, how tasks have ended at an instance since the last report."""
        told = [
            part
            for name, ran in runs.items()
            for part in (name, ran.succeeded, ran.failed, ran.ranked, round(RANK * ran.ranks))
        ]
        if told:
            self._store.call("report", self._periods(instance), [PERIOD_S, KEPT_S, *told])

    def recent(self, instance: str, back_s: Mapping[str, float]) -> Recent:
        """What ended, for each name as far back as it says, s."""
        asked = [part for name, s in back_s.items() for part in (min(s, FARTHEST_S), name)]
        now, *counts = self._store.call("recent", self._periods(instance), [PERIOD_S, *asked])
        here, elsewhere = {}, {}
        for n, name in enumerate(back_s):
            at = 2 * KINDS * n
            fleet, mine = (
                [int(count) for count in counts[i : i + KINDS]] for i in (at, at + KINDS)
            )
            here[name] = _runs(mine)
            elsewhere[name] = _runs([all_ - own for all_, own in zip(fleet, mine, strict=True)])
        return Recent(float(now), here, elsewhere)

    def eject(self, decision: Eject) -> float:
        """Carry it out; until when, by the server's time, s. Raises `Stale`, `TooManyEjected`."""
        keys = self._store.keys
        done, detail = self._store.call(
            "eject",
            [keys.instance(decision.instance), keys.ejected(), keys.members()],
            [
                decision.instance,
                decision.epoch,
                decision.source,
                decision.seconds,
                decision.times,
                decision.reason,
                MOST_EJECTED,
                keys.instance(""),
            ],
        )
        if done < 0:
            raise TooManyEjected(f"{detail} instance(s) are ejected already, and more may not be")
        if not done:
            raise Stale(f"{decision.instance} is now {detail}")
        return float(detail)

    def _periods(self, instance: str) -> list[str]:
        return [self._store.keys.runs(""), self._store.keys.runs(instance)]


def _runs(counts: list[int]) -> Runs:
    succeeded, failed, ranked, ranks = (max(0, count) for count in counts)
    return Runs(succeeded, failed, ranked, ranks / RANK)
