"""One measured figure: what was measured, beside what, and whether it meets its goal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a figure's `ratio` or `value`."""

    of: Literal["ratio", "value"]
    sign: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.of} {self.bound}"

    @property
    def bound(self) -> str:
        """Without what it is for: `<= 1.10`."""
        return f"{self.sign} {self.limit:.2f}"

    def met_by(self, measured: float) -> bool:
        """Whether the measured number keeps the limit."""
        return measured <= self.limit if self.sign == "<=" else measured >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a bench's result.

    `value` and `peer_value` are medians over the rounds (or seeds). `ratio` is the median of the
    rounds' own ratios, so it is not exactly the one divided by the other. `least` and `most` are
    the bounds over the seeds: of the ratio if there is one, else of the value.
    """

    bench: str
    metric: str
    value: float
    unit: str
    peer: str | None = None  # what it is compared with, measured in the same run
    peer_value: float | None = None
    ratio: float | None = None  # value / peer value
    least: float | None = None
    most: float | None = None
    goal: Goal | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the goal is met; None without a goal. A goal whose number is missing is not."""
        if self.goal is None:
            return None
        measured = self.ratio if self.goal.of == "ratio" else self.value
        return measured is not None and self.goal.met_by(measured)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, rounded to six digits."""
        return {
            "bench": self.bench,
            "metric": self.metric,
            "value": _rounded(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": _rounded(self.peer_value),
            "ratio": _rounded(self.ratio),
            "least": _rounded(self.least),
            "most": _rounded(self.most),
            "goal": None if self.goal is None else str(self.goal),
            "pass": self.passed,
        }

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")
