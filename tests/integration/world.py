"""A fleet in which everything happens, and the account of where each message is.

Every step is one that product code does, by processes that live, are taken for dead, or are dead
and do not know it. After each step `check` compares the store with the account: a message is in
exactly one place, or was ended once, by who held it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from nxs_tasks.errors import NameTaken, Stale
from nxs_tasks.model.decision import Release
from nxs_tasks.model.instance import Profile
from nxs_tasks.model.shelf import SHELVES
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.policy.fleet.rescue import rescue
from nxs_tasks.store import FleetStore
from nxs_tasks.store.homes import homes
from nxs_tasks.store.inflight import Inflight, Move
from nxs_tasks.store.message import read, reroute, unwrap
from nxs_tasks.store.shelves import Shelves, Where
from tests.integration.holding import DISPLACED, TAKEN, Process, an_entry
from tests.integration.messages import SHARED, message

NAMES = ("w1", "w2", "w3")
USER_S = "mail"
#: What an instance may know; the shared queue hands its tasks to all.
TASKS = ("shop.pay", "shop.mail")

#: A process, the token that it got, and the epoch that it had then.
Delivery = tuple[Process, str, int]


@dataclass
class World:
    """One fleet, every process that it ever had, and the account."""

    store: FleetStore
    lost_holders: int = 3
    processes: list[Process] = field(default_factory=list)
    #: Every name with every epoch that was ever given out.
    eras: set[tuple[str, int]] = field(default_factory=set)
    #: Tokens that were ever given out, with their epochs, and the process that got each.
    tokens: list[Delivery] = field(default_factory=list)
    #: Those of them that were done with by their holder, or counted as lost.
    settled: set[str] = field(default_factory=set)
    published: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    writes: int = 0

    # what there is

    @property
    def queues(self) -> list[str]:
        return [*map(self.store.keys.own_queue, NAMES), SHARED, USER_S]

    def held_by(self, instance: str, epoch: int) -> dict[str, str]:
        """Token to message."""
        key = self.store.wire.prefix + self.store.keys.inflight(instance, epoch)
        entries = cast("dict[str, str]", self.store.client.hgetall(key))
        return {token: unwrap(entry)[0] for token, entry in entries.items()}

    def messages(self) -> Iterator[str]:
        """Every message, wherever it is."""
        store = self.store
        for queue in self.queues:
            for key in store.wire.queue_keys(queue):
                yield from cast("list[str]", store.client.lrange(key, 0, -1))
        for era in self.eras:
            yield from self.held_by(*era).values()
        for shelf in SHELVES:
            for entry in Shelves(store).entries(shelf):
                yield entry.message

    def snapshot(self) -> Snapshot:
        return replace(self.store.snapshot(), holders=self.store.holders())

    def check(self) -> None:
        """The promise, and what it rests on."""
        places = Counter[str]()
        for raw in self.messages():
            envelope = read(raw)
            places[envelope.task_id] += 1
            assert len(envelope.lost) == self.losses[envelope.task_id], "each loss counts once"
        assert places + self.ended == Counter(self.published)
        client, keys = self.store.client, self.store.keys
        holders = {(h.instance, h.epoch) for h in self.store.holders()}
        for era in self.eras:
            tokens = self.held_by(*era).keys()
            index = client.zrange(self.store.wire.prefix + keys.inflight_index(*era), 0, -1)
            assert tokens == set(index), "hash and index agree"
            assert era in holders or not tokens, "else nobody rescues it"
        for shelf in SHELVES:
            index = client.zrange(keys.shelf_index(shelf), 0, -1)
            assert set(client.hkeys(keys.shelf(shelf))) == set(index)

    # what happens

    def publish(self, queue: str, priority: int, again: int, task: str) -> None:
        """One write, sent once or more."""
        self.writes += 1
        name = f"m{self.writes}"
        raw = message(name, queue, priority=priority, task=task)
        keys = [self.store.keys.producer("p1"), self.store.wire.list_of(queue, priority)]
        for n in range(1 + again):
            wrote = self.store.call("publish", keys, [self.writes, 600, 1, raw])
            assert bool(wrote) is (n == 0)
        self.published.append(name)

    def join(self, name: str, tasks: tuple[str, ...]) -> None:
        """A process takes a name; who had it before does not hear of it."""
        process = Process(self.store, name, tasks=tasks)
        self.processes.append(process)
        self.eras.add((name, process.epoch))

    def claim(self, process: Process) -> None:
        own = self.store.keys.own_queue(process.instance)
        before = self.held_by(process.instance, process.epoch)
        answer = process.ask(own, SHARED, USER_S)
        assert (answer[0] == DISPLACED) is not self.has_its_place(process)
        new = self.held_by(process.instance, process.epoch).keys() - before.keys()
        assert len(new) == int(answer[0] == TAKEN)
        assert not new & {token for _, token, _ in self.tokens}, "each delivery has its own"
        self.tokens += [(process, token, process.epoch) for token in new]

    def has_its_place(self, process: Process) -> bool:
        record = self.store.snapshot().get(process.instance)
        return bool(record and record.epoch == process.epoch and record.state not in ENDED)

    def acknowledge(self, delivery: Delivery) -> None:
        """A task has ended in a process that may have lost its message long ago."""
        process, token, epoch = delivery
        held = self.held_by(process.instance, epoch)
        accepted = process.inflight.acknowledge(process.instance, epoch, token)
        assert accepted is (token in held)
        if accepted:
            self.settled.add(token)
            self.ended[read(held[token]).task_id] += 1

    def shelve(self, delivery: Delivery, shelf: str, due: bool) -> None:
        process, token, epoch = delivery
        held = self.held_by(process.instance, epoch).get(token, message("not held"))
        at = self.store.now() + (-1.0 if due else 3600.0)
        entry = an_entry(token, held, at=at, list=SHARED, task_id=read(held).task_id)
        process.inflight.shelve(process.instance, epoch, token, shelf, entry)

    def unshelve(self, shelf: str, where: Where, queue: str | None) -> None:
        """A person, or the control plane: also what another has just taken from there."""
        entries = list(Shelves(self.store).entries(shelf))
        taken = Shelves(self.store).take(shelf, entries, where, queue=queue)
        assert taken == len(entries)
        assert Shelves(self.store).take(shelf, entries, where, queue=queue) == 0
        if where == "drop":
            self.ended.update(e.task_id for e in entries)

    def hand_on(self, delivery: Delivery, queue: str) -> None:
        """To who knows the task."""
        process, token, epoch = delivery
        held = self.held_by(process.instance, epoch)
        if token in held:
            to = self.store.wire.list_of(queue, read(held[token]).priority)
            move = Move(token, to, reroute(held[token], queue))
            assert process.inflight.relocate(process.instance, epoch, [move]) == 1

    def give_back(self, process: Process, last: bool) -> None:
        """What a process still holds when it ends."""
        where = homes(self.store)
        process.inflight.give_back(process.instance, process.epoch, where, last=last)

    def declare(self, name: str, state: State) -> None:
        """Whatever the control plane thinks of it; after the end there is only a return."""
        record = self.store.snapshot().get(name)
        if record is not None and (record.state not in ENDED or state in ENDED):
            self.store.client.hset(self.store.keys.instance(name), "state", state)

    def lose_record(self, name: str) -> None:
        self.store.client.delete(self.store.keys.instance(name))
        self.store.client.srem(self.store.keys.members(), name)

    def release(self, name: str) -> None:
        """Of one that takes none."""
        record = self.store.snapshot().get(name)
        if record is not None and record.state not in {State.ACTIVE, State.JOINING}:
            known: dict[str, Any] = {
                "instance": name,
                "epoch": record.epoch,
                "source": record.state,
            }
            self.store.release(Release(target=SHARED, reason="as the test wants it", **known))

    def return_(self, process: Process) -> None:
        """A process that lives after all announces itself again, as its heartbeat does it.

        One that was replaced tries it too, as if it had not looked.
        """
        record, epoch = self.store.snapshot().get(process.instance), process.epoch
        if record is not None and record.epoch == epoch:
            if record.state not in ENDED | {State.ZOMBIE}:
                return
            wanted = epoch + (record.state in ENDED)
        else:
            wanted = epoch + 1
        seen = self.store.epoch(process.instance)
        try:
            process.epoch = self.store.join(
                process.instance,
                process.identity,
                Profile(tasks=frozenset(TASKS), queues=frozenset({SHARED})),
                seen_epoch=seen,
                keep_epoch=wanted,
            )
        except NameTaken:
            assert seen > epoch
        else:
            assert (seen, process.epoch) == (epoch, wanted)
            self.eras.add((process.instance, wanted))

    def rescue(self, inflight: Inflight | None = None, unread: str = "") -> None:
        """What the control plane does for all that are gone; one record it may not have read."""
        living = [(p, set(p.tokens())) for p in self.processes if self.has_its_place(p)]
        self._rescue(inflight or Inflight(self.store), unread)
        assert all(set(p.tokens()) == tokens for p, tokens in living), "they keep what they hold"

    def _rescue(self, inflight: Inflight, unread: str) -> None:
        for decision in rescue(self.snapshot().without(unread)):
            era = decision.instance, decision.epoch
            held = self.held_by(*era)
            with suppress(Stale):
                inflight.give_back(
                    *era,
                    homes(self.store),
                    lost_at=self.store.now(),
                    lost_holders=self.lost_holders,
                    dead=True,
                )
            lost = held.keys() - self.held_by(*era).keys() - self.settled
            self.settled |= lost
            self.losses.update(read(held[token]).task_id for token in lost)

    def rescue_twice(self, claims: int) -> None:
        """Two control workers at once: all that the second does is between look and move of one."""
        claimed = [partial(self.claim, process) for process in self.processes] * claims
        between: list[Callable[[], object]] = [self.rescue, *claimed]

        class Interrupted(Inflight):
            def relocate(self, instance: str, epoch: int, moves: Iterable[Move], **how: Any) -> int:
                while between:
                    between.pop(0)()
                return super().relocate(instance, epoch, moves, **how)

        self._rescue(Interrupted(self.store), unread="")

    def end(self) -> None:
        """All processes die, and one of each name takes over: then everything is ended once."""
        for name in NAMES:
            self.lose_record(name)
        self.rescue()
        assert not any(self.held_by(*era) for era in self.eras)
        for name in NAMES:
            self.join(name, TASKS)
        last = self.processes[-len(NAMES) :]
        for shelf in SHELVES:
            self.unshelve(shelf, "front", SHARED)
        for process in last:
            while self.has_taken(process):
                self.acknowledge(self.tokens[-1])
        assert list(self.messages()) == []
        assert self.ended == Counter(self.published)

    def has_taken(self, process: Process) -> bool:
        before = len(self.tokens)
        self.claim(process)
        return len(self.tokens) > before
