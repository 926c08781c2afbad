"""One run of an entry of the schedule, sent once: the write counts it in the same step.

A beat may be frozen between its decision and its write, and wake when another leads; it may die
before or after the write, or not hear the answer. So what is written is written by a script that
looks first whether its sender leads in its term, and whether nobody has sent another run of that
entry since; and that keeps the run as the entry's last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from nxs_tasks.errors import Stale
from nxs_tasks.store import scripts

TICK = scripts.text("tick")
#: What tick.lua answers instead of the script before it.
SENT, ANOTHER, NOT_LEADING = "nxs: sent", "nxs: another", "nxs: not leading"
#: A script that writes nothing.
NOTHING = "return 1\n"


class NotLeading(Stale):
    """The beat that sends does not lead, or not in this term."""


class AnotherRun(Stale):
    """Another run of the entry was counted than its sender knows."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One run: of which entry, after which, and by whom."""

    keys: tuple[str, str, str]  # lease, term, runs
    sender: str
    term: int
    entry: str
    before: str  # the last run as the sender knows it, as it stands in Redis; empty if none
    run: str  # this one

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows the arguments of the script that writes."""
        return self.sender, str(self.term), self.entry, self.before, self.run

    def refuse(self, answer: object) -> None:
        """Raises `NotLeading`, `AnotherRun` if an answer of the script says so."""
        if answer == [NOT_LEADING]:
            raise NotLeading(f"{self.sender} does not lead in term {self.term}")
        if answer == [ANOTHER]:
            raise AnotherRun(f"another run of {self.entry} was sent meanwhile")


def ticked(text: str) -> str:
    """A script that is run for a tick; its own keys and arguments come first."""
    return f"local function write(KEYS, ARGV)\n{text}\nend\n{TICK}"


def was_sent(answer: object) -> bool:
    """Whether the very same run had been sent before."""
    return answer == [SENT]
