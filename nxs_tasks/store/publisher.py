"""One write of messages into queues, which takes effect once, as the server reads it.

A write carries the name of its producer and a number (`publish.lua`), so it can be sent again when
nobody knows what became of it. It is packed here and not by the client, because hundreds of
messages are one argument each, and the client takes longer over an argument than it takes to encode
a message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import NamedTuple

from nxs_tasks.store import scripts
from nxs_tasks.store.tick import Tick, ticked


def digest(text: str) -> str:
    """The name under which a server knows a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


SCRIPT = scripts.text("publish")
SCRIPT_SHA = digest(SCRIPT)
PLACE = scripts.text("place")
PLACE_SHA = digest(PLACE)
#: How long a repetition is known, s: longer than anybody keeps a write that is not confirmed.
REMEMBERED_S = 7 * 86_400
REMEMBERED = str(REMEMBERED_S)
#: How the server is told which script: by its digest, or by its text.
KNOWN, WHOLE = ("EVALSHA", SCRIPT_SHA), ("EVAL", SCRIPT)
PLACE_KNOWN, PLACE_WHOLE = ("EVALSHA", PLACE_SHA), ("EVAL", PLACE)

#: The beginning of the command for one message, and what stands before that message.
ONE = f"*9\r\n$7\r\nEVALSHA\r\n${len(SCRIPT_SHA)}\r\n{SCRIPT_SHA}\r\n$1\r\n2\r\n"
FOR_ONE = f"${len(REMEMBERED)}\r\n{REMEMBERED}\r\n$1\r\n1\r\n"


class Room(NamedTuple):
    """A list that takes a message only while its instance has a free slot for it.

    `other` is the list for the rest. `waiting` is the set of all lines, and `parts` are what
    `place.lua` needs to see of this one.
    """

    other: str
    waiting: str
    parts: tuple[str, ...]


NO_ROOMS: Mapping[str, Room] = {}


class Write(NamedTuple):
    """Messages for some lists, under the name and the number that make a repetition harmless.

    `lists` has the key of each list and its messages, the one to be taken first at the front;
    `rooms` the lists among them that do not take everything.
    """

    producer: str
    number: int
    lists: Mapping[str, Sequence[str]]
    rooms: Mapping[str, Room] = NO_ROOMS

    @property
    def size(self) -> int:
        """How many messages it holds."""
        return sum(len(messages) for messages in self.lists.values())


def pack(
    producer_key: str, write: Write, *, whole: bool = False, tick: Tick | None = None
) -> bytes:
    """The command as the server reads it; with the text of the script if `whole`.

    With `tick` it is one for a run of the schedule, and may be refused as that (`tick.lua`).
    """
    lists = write.lists
    if len(lists) == 1 and not (whole or write.rooms or tick):
        [(key, messages)] = lists.items()
        if len(messages) == 1:
            return _pack_one(producer_key, str(write.number), key, messages[0])
    keys, arguments = (_placing if write.rooms else _plain)(producer_key, write)
    known, text = (PLACE_KNOWN, PLACE_WHOLE) if write.rooms else (KNOWN, WHOLE)
    if tick is not None:
        text = ("EVAL", ticked(text[1]))
        known = ("EVALSHA", digest(text[1]))
        keys, arguments = [*keys, *tick.keys], [*arguments, *tick.arguments]
    return _packed([*(text if whole else known), str(len(keys)), *keys, *arguments])


def _plain(producer_key: str, write: Write) -> tuple[list[str], list[str]]:
    """Keys and arguments of `publish.lua`."""
    arguments = [str(write.number), REMEMBERED]
    for messages in write.lists.values():
        arguments.append(str(len(messages)))
        arguments += messages
    return [producer_key, *write.lists], arguments


def _placing(producer_key: str, write: Write) -> tuple[list[str], list[str]]:
    """Keys and arguments of `place.lua`."""
    first = next(iter(write.rooms.values()))
    keys, arguments = [producer_key, first.waiting], [str(write.number), REMEMBERED]
    for key, messages in write.lists.items():
        room = write.rooms.get(key)
        if room is None:
            keys += (key, key)
            arguments += (str(len(messages)), "0", *messages)
        else:
            keys += (key, room.other)
            arguments += (str(len(messages)), str(len(room.parts)), *room.parts, *messages)
    return keys, arguments


def _packed(parts: Sequence[str]) -> bytes:
    text = "".join([f"${len(part)}\r\n{part}\r\n" for part in parts])
    if text.isascii():
        # Each character is one byte, so the lengths are right.
        return f"*{len(parts)}\r\n{text}".encode("ascii")
    return b"".join((b"*%d\r\n" % len(parts), *map(encoded, parts)))


def _pack_one(producer_key: str, number: str, key: str, message: str) -> bytes:
    """The same for one message, as most writes are."""
    text = (
        f"{ONE}${len(producer_key)}\r\n{producer_key}\r\n${len(key)}\r\n{key}\r\n"
        f"${len(number)}\r\n{number}\r\n{FOR_ONE}${len(message)}\r\n{message}\r\n"
    )
    if text.isascii():
        return text.encode("ascii")
    parts = (*KNOWN, "2", producer_key, key, number, REMEMBERED, "1", message)
    return b"".join((b"*%d\r\n" % len(parts), *map(encoded, parts)))


def encoded(part: str) -> bytes:
    """One part of a command, as the protocol has it."""
    data = part.encode("utf-8", "surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(data), data)
