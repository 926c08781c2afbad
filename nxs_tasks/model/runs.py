"""How tasks of one name ended in the last minutes, on one instance or on several."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runs:
    """Counts, and of those whose usual length is known how they rank in it.

    A rank says what share of the earlier runs *of the same instance* was shorter: ½ on average if
    all is as before, near 1 where each takes longer than any did. So ranks of slow and of fast
    machines can be added, and no single one weighs much.
    """

    succeeded: int = 0
    failed: int = 0
    ranked: int = 0  # successes that have a rank
    ranks: float = 0.0  # the sum of their ranks

    @property
    def all(self) -> int:
        """How many ended."""
        return self.succeeded + self.failed

    @property
    def failing(self) -> float:
        """Share that failed; 0 of none."""
        return self.failed / self.all if self.all else 0.0

    @property
    def rank(self) -> float:
        """The mean rank; ½ of none."""
        return self.ranks / self.ranked if self.ranked else 0.5


NO_RUNS = Runs()
