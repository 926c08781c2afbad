"""No message is lost and none is ended twice, whatever happens in which order."""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nxs_tasks.model.shelf import DELAYED, PARKED, SHELVES
from nxs_tasks.model.state import State
from nxs_tasks.store import FleetStore
from tests.integration.holding import Process
from tests.integration.messages import SHARED
from tests.integration.world import NAMES, TASKS, USER_S, Delivery, World

#: Chosen modulo what there is.
which = st.integers(0, 999)
names = st.sampled_from(NAMES)
known = st.sampled_from([TASKS, TASKS[:1]])


class Machine(RuleBasedStateMachine):
    """Steps of a `World`, in any order."""

    def __init__(self, store: FleetStore) -> None:
        super().__init__()
        store.client.flushdb()
        self.world = World(store)

    def process(self, n: int) -> Process:
        return self.world.processes[n % len(self.world.processes)]

    def delivery(self, n: int) -> Delivery:
        # Of the last ones rather than of the first: those are mostly done with.
        return self.world.tokens[-1 - n % min(8, len(self.world.tokens))]

    @initialize(tasks=known)
    def begin(self, tasks: tuple[str, ...]) -> None:
        self.world.join(NAMES[0], TASKS)
        self.world.join(NAMES[1], tasks)

    @rule(
        queue=which,
        priority=st.sampled_from((0, 0, 0, 6)),
        again=st.integers(0, 1),
        task=st.sampled_from(TASKS),
    )
    def publish(self, queue: int, priority: int, again: int, task: str) -> None:
        queues = [SHARED, *self.world.queues]
        self.world.publish(queues[queue % len(queues)], priority, again, task)

    @rule(n=which, times=st.integers(1, 3))
    def claim(self, n: int, times: int) -> None:
        for _ in range(times):
            self.world.claim(self.process(n))

    @rule(n=which)
    @precondition(lambda self: self.world.tokens)
    def acknowledge(self, n: int) -> None:
        self.world.acknowledge(self.delivery(n))

    @rule(n=which, shelf=st.sampled_from(SHELVES), due=st.booleans())
    @precondition(lambda self: self.world.tokens)
    def shelve(self, n: int, shelf: str, due: bool) -> None:
        self.world.shelve(self.delivery(n), shelf, due)

    @rule(n=which, due=st.booleans())
    @precondition(lambda self: self.world.tokens)
    def delay(self, n: int, due: bool) -> None:
        self.world.shelve(self.delivery(n), DELAYED, due)

    @rule(
        shelf=st.sampled_from((*SHELVES, PARKED)),
        where=st.sampled_from(("front", "back", "front", "back", "drop")),
        queue=st.sampled_from((None, SHARED, USER_S)),
    )
    def unshelve(self, shelf: str, where: Any, queue: str | None) -> None:
        self.world.unshelve(shelf, where, queue)

    @rule(n=which, name=names)
    @precondition(lambda self: self.world.tokens)
    def hand_on(self, n: int, name: str) -> None:
        self.world.hand_on(self.delivery(n), self.world.store.keys.own_queue(name))

    @rule(n=which, last=st.booleans())
    def give_back(self, n: int, last: bool) -> None:
        self.world.give_back(self.process(n), last)

    @rule(name=names, tasks=known)
    def join(self, name: str, tasks: tuple[str, ...]) -> None:
        self.world.join(name, tasks)

    @rule(name=names, state=st.sampled_from((*State, State.GONE, State.GONE)))
    def declare(self, name: str, state: State) -> None:
        self.world.declare(name, state)

    @rule(name=names)
    def lose_record(self, name: str) -> None:
        self.world.lose_record(name)

    @rule(n=which)
    def return_(self, n: int) -> None:
        self.world.return_(self.process(n))

    @rule(name=names)
    def release(self, name: str) -> None:
        self.world.release(name)

    @rule(unread=st.sampled_from(("", *NAMES)))
    def rescue(self, unread: str) -> None:
        self.world.rescue(unread=unread)

    @rule(claims=st.integers(0, 1))
    def rescue_twice(self, claims: int) -> None:
        self.world.rescue_twice(claims)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.end()


def test_whatever_happens_each_message_is_in_one_place_or_ended_once(store: FleetStore) -> None:
    class OnStore(Machine):
        def __init__(self) -> None:
            super().__init__(store)

    run_state_machine_as_test(
        OnStore,
        settings=hypothesis.settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            # A failure is shown as it was found: to find a shorter one takes minutes.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
