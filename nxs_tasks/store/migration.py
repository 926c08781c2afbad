"""A migration: waiting tasks move from one own queue to another, in parts of one script each.

Each part is complete in itself: whoever dies between two of them has made a smaller migration.
Within one priority the target's tasks are taken in the order in which they were placed, whether
they were moved or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

from nxs_tasks.errors import MessageError, Stale
from nxs_tasks.model.decision import Migrate
from nxs_tasks.settings import Settings
from nxs_tasks.store.connect import explained
from nxs_tasks.store.message import Envelope, migrated, placed_at, read
from nxs_tasks.store.store import FleetStore

#: Messages read, and moved by one call of the script.
PART = 500
#: Messages looked at beyond those that are to move, where many may not.
LOOKED_AT = 5_000
#: Read beyond those that are to move.
FEW = 20
#: Most messages of the target that are put in order with those that come.
MERGED = 2_000
#: Tries for a part whose target is given something else at each moment.
TRIES = 3

PINNED = "named this queue themselves"
UNKNOWN = "not known to the target"
MOVED_LATELY = "moved lately"
WARM_HERE = "waiting for a warm cache"
NO_MESSAGE = "no message that can be read"
TARGET_OLDER = "newer than too many that wait at the target"
TAKEN = "taken meanwhile"
UNSETTLED = "left, because what waits at the target changed at each try"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a migration did: how many tasks moved, and of those looked at how many stayed, and why.

    `cut_short` says why it ended before its time; "" if it did not.
    """

    moved: int
    stayed: Mapping[str, int]
    cut_short: str = ""

    def __str__(self) -> str:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(self.stayed.items()))
        ended = f", then {self.cut_short}" if self.cut_short else ""
        return f"{self.moved} task(s) moved" + (f" (left: {why})" if why else "") + ended


@dataclass(frozen=True, slots=True)
class _Message:
    """A message that is to move. `at` rises within a list, as its order does."""

    raw: str
    text: str
    at: float


def migrate(store: FleetStore, decision: Migrate, settings: Settings) -> Moved:
    """Carry out a migration, the most urgent and oldest tasks first.

    Raises `Stale` if state or epoch of an end changed, if one has taken part in another migration
    within `migrate_every`, or if no task could be moved.
    """
    return _Migration(store, decision, settings).run()


class _Migration:
    def __init__(self, store: FleetStore, decision: Migrate, settings: Settings) -> None:
        self._store = store
        self._decision = decision
        self._settings = settings
        self._name = uuid4().hex
        self._target = store.keys.own_queue(decision.target)
        self._left = decision.tasks
        self._moved = 0
        self._looked_at = 0
        self._stayed: Counter[str] = Counter()
        self._now = 0.0

    def run(self) -> Moved:
        """All lists, one after the other."""
        store, decision = self._store, self._decision
        self._now = store.now()
        sources = store.wire.queue_keys(store.keys.own_queue(decision.source))
        starting, cut_short = decision.after, ""
        try:
            for source, target in zip(sources, store.wire.queue_keys(self._target), strict=True):
                with explained(store.url):
                    depth = store.client.llen(source)
                passed = min(starting, depth)
                starting -= passed
                self._empty(source, target, passed)
        except Stale as error:
            cut_short = str(error)
        done = Moved(moved=self._moved, stayed=dict(self._stayed), cut_short=cut_short)
        if not done.moved:
            raise Stale(cut_short or f"nothing could be moved: {done}")
        return done

    def _empty(self, source: str, target: str, passed: int) -> None:
        """One list, beyond the `passed` messages that are next in turn."""
        newest = float("-inf")
        most = self._decision.tasks + LOOKED_AT
        while self._left and self._looked_at < most:
            count = min(PART, self._left + FEW)
            raws = self._range(source, passed, count)
            chosen = list(self._choose(raws, newest))
            self._looked_at += len(raws)
            moved = self._part(source, target, chosen, passed + len(raws)) if chosen else 0
            newest = chosen[-1].at if chosen else newest
            passed += len(raws) - moved
            if len(raws) < count or (chosen and not moved):
                return

    def _range(self, key: str, passed: int, count: int) -> list[str]:
        """Messages beyond the `passed` that are next in turn, the next one first."""
        with explained(self._store.url):
            found = self._store.client.lrange(key, -passed - count, -passed - 1)
        return cast("list[str]", found)[::-1]

    def _choose(self, raws: Iterable[str], newest: float) -> Iterator[_Message]:
        chosen = 0
        for raw in raws:
            if chosen == self._left:
                return
            try:
                envelope, text, why_not = migrated(
                    raw, self._decision.source, self._target, self._now, self._why_not
                )
            except MessageError:
                envelope, text, why_not = None, "", NO_MESSAGE
            if envelope is None or why_not:
                self._stayed[why_not] += 1
                continue
            newest = max(newest, _at(envelope))
            chosen += 1
            yield _Message(raw, text, newest)

    def _why_not(self, envelope: Envelope) -> str:
        if envelope.placed is None:
            return PINNED
        if envelope.task not in self._decision.knows:
            return UNKNOWN
        moved = placed_at(envelope.moved) if envelope.moved is not None else None
        if moved is not None and abs(self._now - moved) < self._settings.migrate_hold:
            return MOVED_LATELY
        if self._waits_for_warmth(envelope.placed):
            return WARM_HERE
        return ""

    def _waits_for_warmth(self, placed: Mapping[str, Any]) -> bool:
        key, at = placed.get("key"), placed_at(placed)
        if not key or key in self._decision.warm:
            return False
        return at is not None and self._now - at <= self._decision.cold_after

    def _part(self, source: str, target: str, chosen: list[_Message], reach: int) -> int:
        for _ in range(TRIES):
            *ends, pairs = self._in_order(target, chosen)
            fitting = sum(1 for raw in pairs[::2] if raw)
            moved = self._call(source, target, [reach, *ends, *pairs]) if fitting else 0
            if moved >= 0:
                break
        missed = TAKEN if moved >= 0 else UNSETTLED
        moved = max(0, moved)
        self._moved += moved
        self._left -= moved
        if fitting < len(chosen):
            self._stayed[TARGET_OLDER] += len(chosen) - fitting
        if moved < fitting:
            self._stayed[missed] += fitting - moved
        return moved

    def _in_order(self, target: str, chosen: list[_Message]) -> tuple[str, str, list[str]]:
        """What `migrate.lua` is told of the order: two ends of the target's line, and the pairs."""
        with explained(self._store.url):
            newest = cast("str | None", self._store.client.lindex(target, 0))
        if newest and float("-inf") < _at_of(newest) <= chosen[0].at:
            return newest, "", [text for m in chosen for text in (m.raw, m.text)]
        residents, beyond = self._older(target, chosen[-1].at)
        if len(residents) >= MERGED:
            # What is newer than all of these has its place further back than was looked.
            chosen = [m for m in chosen if m.at < residents[-1][0]]
        entries = [(at, 0, "", raw) for at, raw in residents]
        entries += [(m.at, 1, m.raw, m.text) for m in chosen]
        ordered = sorted(entries, key=lambda entry: entry[:2])
        return "", beyond, [text for _, _, raw, written in ordered for text in (raw, written)]

    def _older(self, target: str, than: float) -> tuple[list[tuple[float, str]], str]:
        """Messages that wait at the target and are no newer than this, the next in turn first.

        And the one after them, "" if there is none, or it is too far away.
        """
        found: list[tuple[float, str]] = []
        at = float("-inf")
        while len(found) < MERGED:
            raws = self._range(target, len(found), PART)
            for raw in raws:
                at = max(at, _at_of(raw))
                if at > than:
                    return found, raw
                found.append((at, raw))
            if len(raws) < PART:
                break
        return found, ""

    def _call(self, source: str, target: str, order: list[str | int]) -> int:
        d, keys = self._decision, self._store.keys
        moved, why = self._store.call(
            "migrate",
            [keys.instance(d.source), keys.instance(d.target), source, target],
            [
                *(d.source_epoch, d.source_state, d.target_epoch, d.target_state),
                *(self._name, self._settings.migrate_every, *order),
            ],
        )
        if moved == -1:
            raise Stale(str(why))
        return int(moved)


def _at(envelope: Envelope) -> float:
    """When it was placed, s; as early as can be where it does not say."""
    at = placed_at(envelope.placed) if envelope.placed is not None else None
    return float("-inf") if at is None else at


def _at_of(raw: str) -> float:
    try:
        return _at(read(raw))
    except MessageError:
        return float("-inf")
