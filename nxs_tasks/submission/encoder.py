"""Plain messages, quickly: a text that Celery and kombu wrote once, with new values in its gaps.

The text is made from a message whose varying parts are marks. So everything else in it is what
Celery and kombu of the installed version write, and a header that they add tomorrow is there too.
"""

from __future__ import annotations

import os
import re
import secrets
from binascii import b2a_base64
from collections.abc import Mapping
from enum import IntEnum
from json import encoder as python_json
from json.encoder import encode_basestring_ascii as quoted
from operator import itemgetter
from typing import Any

from kombu.exceptions import EncodeError
from kombu.utils.json import JSONEncoder

from nxs_tasks.store.message import PLACED_HEADER
from nxs_tasks.submission.argsrepr import describe
from nxs_tasks.submission.draft import compose

NULL = "null"
#: As kombu's `dumps`, which makes a new encoder for each message.
to_json = JSONEncoder().encode
#: The same without the set-up that Python does for each value, where it lets one keep it.
_make: Any = getattr(python_json, "c_make_encoder", None)
_encode = _make and _make(None, JSONEncoder().default, quoted, None, ": ", ", ", False, False, True)
#: The digit that says which kind of UUID it is, from a random one.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Slot(IntEnum):
    """The varying parts of a message; each value is a piece of JSON."""

    BODY = 0
    ID = 1
    ARGS = 2
    KWARGS = 3
    TAG = 4
    QUEUE = 5
    PLACED = 6
    ROOT = 7
    PARENT = 8
    ETA = 9
    EXPIRES = 10
    EXPIRATION = 11
    ORIGIN = 12
    REPLY_TO = 13


class Encoder:
    """Messages of one task with the same options, which are all but those with a `Slot`.

    For JSON without compression. `placed` says whether there is a header of the placement, and
    `expiring` whether there is a property `expiration`.
    """

    def __init__(
        self, app: Any, name: str, options: Mapping[str, Any], *, placed: bool, expiring: bool
    ) -> None:
        self._longest = (app.amqp.argsrepr_maxsize, app.amqp.kwargsrepr_maxsize)
        self._levels = app.conf.task_repr_maxlevels
        marks = {slot: f"{slot.name}-{secrets.token_hex(16)}" for slot in Slot}
        draft = compose(
            app,
            name,
            [marks[Slot.ARGS]],
            {marks[Slot.KWARGS]: None},
            marks[Slot.ID],
            options,
            expiration=marks[Slot.EXPIRATION] if expiring else None,
            instead=_marked(marks),
        )
        if placed:
            draft.headers[PLACED_HEADER] = marks[Slot.PLACED]
        self._before, self._between, self._after = _body(to_json(draft.body), marks)
        text = draft.text(marks[Slot.QUEUE], marks[Slot.TAG])
        start = len('{"body": ')
        end = text.index('"', start + 1) + 1
        pieces = [text[:start], Slot.BODY, *_pieces(text[end:], marks)]
        self._template = "".join(
            "%s" if isinstance(piece, Slot) else piece.replace("%", "%%") for piece in pieces
        )
        self._pick = itemgetter(*(int(piece) for piece in pieces if isinstance(piece, Slot)))

    def text(self, args: Any, kwargs: Any, own: str, *others: str) -> str:
        """A message: `own` is its id, the others are the values from `Slot.TAG` on, all as JSON.

        Raises kombu's `EncodeError` for arguments that JSON does not know.
        """
        try:
            keywords = arguments_json(kwargs) if kwargs else "{}"
            body = f"{self._before}{arguments_json(args)}{self._between}{keywords}{self._after}"
        except Exception as unfit:
            raise EncodeError(unfit) from unfit
        longest, longest_of_kwargs = self._longest
        text: str = self._template % self._pick(
            (
                f'"{b2a_base64(body.encode("ascii"), newline=False).decode("ascii")}"',
                own,
                quoted(describe(args, longest, self._levels)),
                quoted(describe(kwargs, longest_of_kwargs, self._levels)) if kwargs else '"{}"',
                *others,
            )
        )
        return text


def _marked(marks: Mapping[Slot, str]) -> dict[str, str]:
    return {
        "argsrepr": marks[Slot.ARGS],
        "kwargsrepr": marks[Slot.KWARGS],
        "root_id": marks[Slot.ROOT],
        "parent_id": marks[Slot.PARENT],
        "eta": marks[Slot.ETA],
        "expires": marks[Slot.EXPIRES],
        "origin": marks[Slot.ORIGIN],
        "reply_to": marks[Slot.REPLY_TO],
    }


def _body(text: str, marks: Mapping[Slot, str]) -> tuple[str, str, str]:
    before, _, rest = text.partition(to_json([marks[Slot.ARGS]]))
    between, _, after = rest.partition(to_json({marks[Slot.KWARGS]: None}))
    return before, between, after


def _pieces(text: str, marks: Mapping[Slot, str]) -> list[str | Slot]:
    slots = {f'"{mark}"': slot for slot, mark in marks.items()}
    parts = re.split("(" + "|".join(map(re.escape, slots)) + ")", text)
    return [slots.get(part, part) for part in parts]


def arguments_json(value: Any) -> str:
    """Lists, tuples and mappings as JSON. Raises whatever `to_json` raises."""
    if _encode is not None:
        try:
            return "".join(_encode(value, 0))
        except RecursionError:
            pass  # `to_json` tells a circle from what is only deep
    return str(to_json(value))


def new_ids(count: int) -> list[str]:
    """So many random ids, as `uuid4` writes them."""
    digits = os.urandom(16 * count).hex()
    return [
        f"{digits[i : i + 8]}-{digits[i + 8 : i + 12]}-4{digits[i + 13 : i + 16]}"
        f"-{_VARIANT[digits[i + 16]]}{digits[i + 17 : i + 20]}-{digits[i + 20 : i + 32]}"
        for i in range(0, 32 * count, 32)
    ]


#: Made in advance, because a call of the system takes longer than the rest of an id.
_spare_ids: list[str] = []
SPARE = 100
# A child with the ids of its parent would give them to other tasks.
os.register_at_fork(after_in_child=_spare_ids.clear)


def new_id() -> str:
    """One random id."""
    try:
        return _spare_ids.pop()
    except IndexError:
        found, *others = new_ids(SPARE)
        _spare_ids.extend(others)
        return found
