"""What a task asks of the instance that runs it: declared once for a task, bound for one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

#: Kinds of defaults that are told: a process without the code gets the same text from them.
PLAIN_VALUES = (str, int, float, bool, NoneType)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one task asks: `slots` of the pool, `memory` in bytes, and perhaps a warm cache."""

    task: str
    key: str = ""  # what it wants to find in a cache
    io: bool = False  # it mostly waits for disk or network
    slots: int = 1
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Traits:
    """What a task declares. `affinity` is a template over its arguments.

    `arguments` are the names of those that may come by position, in their order; `defaults` what
    stands for one that is left out, of those that the template uses.
    """

    needs: tuple[str, ...] = ()  # tags that an instance must have
    io: bool = False
    slots: int = 1
    memory: int = 0  # bytes
    affinity: str = ""
    arguments: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is as usual."""
        plain = Traits()
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in found.items() if value != getattr(plain, name)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Traits:
        """The inverse of `as_dict`; what is new in a later NXS is passed over."""
        return cls(
            needs=tuple(str(tag) for tag in data.get("needs", ())),
            io=bool(data.get("io", False)),
            slots=max(1, int(data.get("slots", 1))),
            memory=max(0, int(data.get("memory", 0))),
            affinity=str(data.get("affinity", "")),
            arguments=tuple(str(name) for name in data.get("arguments", ())),
            defaults=tuple(
                (str(name), value)
                for name, value in data.get("defaults", ())
                if isinstance(value, PLAIN_VALUES)
            ),
        )


PLAIN = Traits()
