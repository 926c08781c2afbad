"""`argsrepr` and `kwargsrepr`, which Celery writes into each message for logs and monitors.

Celery's own `saferepr` takes more time than all the rest of a message together. For arguments of
plain types it writes what `repr` writes, but for a few strings: those are left to it.
"""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr

#: Types, and none derived from them, that `repr` and `saferepr` write alike.
SCALARS = frozenset({int, float, bool, str, type(None)})


def describe(value: Any, longest: int, levels: int | None) -> str:
    """What `saferepr(value, longest, levels)` is: `longest` in characters, `levels` of nesting."""
    plain = type(value) is tuple and SCALARS.issuperset(map(type, value))
    if levels and (plain or _plain(value, levels)):
        text = repr(value)
        # An escape, or other quotes: there `saferepr` writes the string as it is. And it shortens
        # a text as soon as that is as long as what is left of the limit.
        if '"' not in text and "\\" not in text and len(text) < longest:
            return text
    return str(saferepr(value, longest, levels))


def _plain(value: Any, levels: int) -> bool:
    kind = type(value)
    if kind in SCALARS:
        return True
    if levels <= 0:
        return False
    if kind is tuple or kind is list:
        return SCALARS.issuperset(map(type, value)) or all(_plain(v, levels - 1) for v in value)
    if kind is dict:
        return SCALARS.issuperset(map(type, value)) and all(
            _plain(v, levels - 1) for v in value.values()
        )
    return False
