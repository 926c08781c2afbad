"""Which list a message is kept for: an instance's own queue may be nobody's when it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nxs_tasks.errors import MessageError
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.keys import Wire
from nxs_tasks.store.message import reroute


def shelter(
    runtime: Runtime, lists: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Sequence[str]]]:
    """The same messages, those for an own queue addressed to the shared one of their priority."""
    wire = Wire.from_options(runtime.app.conf.broker_transport_options or {})
    own, shared = wire.prefix + runtime.keys.own_queue(""), runtime.shared_queue
    for key, messages in lists.items():
        if not key.startswith(own):
            yield key, messages
            continue
        _, mark, step = key.rpartition(wire.sep)
        of_priority = mark + step if mark else ""
        yield wire.prefix + shared + of_priority, [_rerouted(m, shared) for m in messages]


def _rerouted(message: str, queue: str) -> str:
    try:
        return reroute(message, queue)
    except MessageError:
        return message
