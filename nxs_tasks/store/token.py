"""The name of one delivery: who holds a message, in which epoch, and the how-many-eth it took.

It is the field of the in-flight hash, kombu's delivery tag on the holder, and so what an
acknowledgement or a result names: it counts only while that field is still there. A message that
was taken from its holder and given to another has another token.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Token:
    """One delivery of one message."""

    instance: str
    epoch: int
    number: int  # counts the deliveries to one process

    def __str__(self) -> str:
        return f"{self.instance}|{self.epoch}|{self.number}"


def parse(text: object) -> Token | None:
    """The token in a delivery tag, or None where a stock worker or consumer has taken it."""
    if not isinstance(text, str):
        return None
    parts = text.rsplit("|", 2)
    if len(parts) < len(Token.__dataclass_fields__) or not all(p.isdecimal() for p in parts[1:]):
        return None
    return Token(parts[0], int(parts[1]), int(parts[2]))
