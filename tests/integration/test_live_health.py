"""A worker whose tasks have become slow beside one whose tasks have not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from nxs_tasks.model.state import State
from tests.conftest import JSON
from tests.integration.live import Live, live_fleet

APP = "tests.integration.brewery_fleet"
SHORT = {
    "HEARTBEAT_PERIOD": "0.5",
    "JOIN_PERIOD": "0.5",
    "LIFECYCLE_PERIOD": "1",
    "HEALTH_WINDOW": "3",
}
#: Fewer never wait while the test goes on, and a time that is enough to learn and to see.
AHEAD, MINUTES_S = 300, 150.0


@pytest.fixture
def brewery(tmp_path: Path) -> Iterator[Live]:
    with live_fleet(tmp_path) as live:
        live.env |= {f"NXS_{name}": value for name, value in SHORT.items()}
        live.env["BREWERY_SLOW"] = str(tmp_path)
        for name in ("w1@t", "w2@t"):
            live.worker(name, 2, app=APP)
        live.worker("control@t", 2, "-Q", "nxs.control", "-P", "threads", app=APP)
        live.start("beat", "celery", "-A", APP, "beat", "--pidfile=", "-l", "INFO")
        live.until_state(State.ACTIVE, "w1@t", "w2@t")
        yield live


@pytest.fixture
def busy(brewery: Live) -> Iterator[Callable[[Callable[[], bool], str], None]]:
    """Waits for a condition while both workers always have something to do."""
    stock = Celery("stock", broker=brewery.server.url, set_as_current=False)
    stock.conf.update(JSON)

    def wait(condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            if brewery.store.client.llen("celery") < AHEAD:
                for _ in range(AHEAD):
                    stock.send_task("brewery.brew")
            return condition()

        brewery.until(holds, what, MINUTES_S)

    yield wait
    stock.close()


@pytest.mark.timeout(400)
def test_who_becomes_slow_is_degraded_and_comes_back(
    brewery: Live, busy: Callable[[Callable[[], bool], str], None], tmp_path: Path
) -> None:
    def ranked() -> bool:
        """Both tell how tasks rank in their past."""
        store, rank = brewery.store, "ranked:brewery.brew"
        periods = [
            list(store.client.scan_iter(match=f"{store.keys.runs(name)}*", count=1000))
            for name in ("w1@t", "w2@t")
        ]
        return all(any(store.client.hexists(key, rank) for key in keys) for keys in periods)

    def state(name: str) -> State:
        return brewery.instance(name).state

    busy(ranked, "both to know how long it usually takes")
    assert [state(name) for name in ("w1@t", "w2@t")] == [State.ACTIVE, State.ACTIVE]
    slow = tmp_path / "w1@t"
    slow.touch()
    busy(lambda: state("w1@t") is State.DEGRADED, "w1@t DEGRADED")
    assert state("w2@t") is State.ACTIVE
    shown = " ".join(brewery.command("nxs_tasks.cli", "-A", APP, "status").stdout.split())
    assert "w1@t is unwell: brewery.brew takes" in shown
    assert "elsewhere as before" in shown
    slow.unlink()
    busy(lambda: state("w1@t") is State.ACTIVE, "w1@t ACTIVE again")
    assert brewery.instance("w1@t").load.unhealthy == ""
    story = " ".join(brewery.command("nxs_tasks.cli", "-A", APP, "story", "w1@t").stdout.split())
    assert "heartbeats: brewery.brew takes" in story
