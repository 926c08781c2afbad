"""A rolling restart of three real nodes under load: every task once, by the tasks' own account."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from nxs_tasks.model.state import State
from nxs_tasks.store.events import Events
from tests.integration.ledger import Ledger
from tests.integration.live import Process

pytest_plugins = ["tests.integration.ledger_fixtures"]

NODES = ("w1@t", "w2@t", "w3@t")
#: One task at so many looks at what is waited for: about four a second.
LOOKS = 5
NAP_S = 0.3


class Load:
    """Submits while something else is waited for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ids: list[str] = []
        self._looks = count()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def submit_and_look() -> bool:
            if next(self._looks) % LOOKS == 0:
                self.ids.append(str(self.ledger.tasks.run.delay(NAP_S).id))
            return condition()

        self.ledger.live.until(submit_and_look, what)


@pytest.mark.timeout(400)
def test_every_task_runs_once_while_all_nodes_are_restarted(ledger: Ledger) -> None:
    live, load = ledger.live, Load(ledger)
    live.control_plane()
    workers = {name: ledger.worker(name, 2) for name in NODES}
    live.until_state(State.ACTIVE, *NODES)
    load.until(lambda: len(ledger.times()) >= 10, "the load")
    for number, (name, worker) in enumerate(workers.items()):
        before = live.instance(name).epoch
        if number == 1:
            drained = live.start("drain", "nxs_tasks.cli", "-A", "tests.integration.ledger_fleet",
                                 "drain", name, "--wait")  # fmt: skip
            load.until(partial(_has_ended, drained), f"{name} drained")
            assert drained.exit_code == 0, drained.log
        else:
            worker.signal(signal.SIGTERM)
        load.until(partial(_has_ended, worker), f"{name} to end")
        assert worker.exit_code == 0, worker.log
        live.worker(name, 2, "--without-mingle", app="tests.integration.ledger_fleet")
        load.until(partial(_is_back, ledger, name, before), f"{name} back")
    ledger.until_idle()
    assert len(load.ids) > 30
    assert {i: n for i in load.ids if (n := ledger.times()[i]) != 1} == {}, "lost or doubled"
    assert {i: n for i in load.ids if (n := ledger.times("end")[i]) != 1} == {}
    assert ledger.client.xlen(live.store.keys.losses()) == 0
    shutdowns = [t for t in _transitions(ledger) if t == ("LEAVING", "GONE", "drained")]
    assert len(shutdowns) == len(NODES), "each left, and nobody was given up"


def _has_ended(process: Process) -> bool:
    return process.exit_code is not None


def _is_back(ledger: Ledger, name: str, before: int) -> bool:
    now = ledger.live.instance(name)
    return now.epoch > before and now.state is State.ACTIVE


def _transitions(ledger: Ledger) -> list[tuple[str, str, str]]:
    history = ledger.tasks.fleet.runtime.history()
    found = [*history.transitions(), *Events(ledger.live.store).pending_transitions()]
    return [(t.source, t.target, t.event) for t in {t.event_id: t for t in found}.values()]
