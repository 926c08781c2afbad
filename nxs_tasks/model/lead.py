"""Who leads the beats of an app, and where each entry of its schedule stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The last run of an entry of the schedule; times are the server's, s.

    An entry that has not run yet has a count of 0, and `at` is since when it counts.
    """

    at: float
    count: int
    term: int = 0  # of the beat that sent it
    task_id: str = ""  # of the task that was sent, empty if none was
    due: float | None = None  # when the next one is due, None if the schedule does not tell


@dataclass(frozen=True, slots=True)
class Standing:
    """What a beat is told that asks for the lead."""

    leads: bool
    term: int
    at: float  # the server's time, s
    left_s: float  # for which the lease of the one who leads still lasts


@dataclass(frozen=True, slots=True, kw_only=True)
class StandBy:
    """A beat that does not lead, and when it asked last."""

    beat: str
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Who leads the beats of an app; times are the server's, s.

    Without a leader, `last` is the one before, and the times are its.
    """

    app: str
    leader: str  # empty if nobody leads
    last: str  # who led last, empty if nobody ever has
    term: int
    since: float | None
    renewed_at: float | None
    resigned_at: float | None
    standbys: tuple[StandBy, ...]  # lately heard of
    runs: dict[str, Run]  # by entry
