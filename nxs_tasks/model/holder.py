"""A process that may hold messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One process: it holds messages under its instance's name and its own epoch."""

    instance: str
    epoch: int
    held: int
