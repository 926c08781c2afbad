"""What `submit()` and `submit_many()` have sent, run by real workers: with the line and without."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from nxs_tasks.model.state import State
from nxs_tasks.submission.outcome import SubmitOutcome
from tests.integration.live import APP, PATIENCE_S, STOCK_APP, Live

pytest_plugins = ["tests.integration.live_fixtures"]

ACCEPTED = SubmitOutcome.ACCEPTED
MANY = 600  # more than one write


def result(shop: Any, submission: Any) -> Any:
    """The result of a submission, by its id alone."""
    return shop.app.AsyncResult(submission.id).get(timeout=PATIENCE_S)


def start(live: Live, app: str) -> None:
    """A worker with one slot, which is ready; one of a fleet is ACTIVE."""
    process = live.worker("w1@t", 1, app=app)
    if app == APP:
        live.control_plane()
        live.until_state(State.ACTIVE, "w1@t")
    else:
        live.until(lambda: "ready." in process.log, "a stock worker")


@pytest.mark.parametrize("app", [APP, STOCK_APP], ids=["NXS", "stock"])
class TestWorkers:
    def test_run_what_was_sent(self, live: Live, shop: Any, app: str) -> None:
        start(live, app)
        fleet = shop.fleet
        one = fleet.submit(shop.add, (20, 3))
        named = fleet.submit("shop.add", kwargs={"x": 1, "y": 2})
        late = fleet.submit(shop.add, (4, 5), countdown=1)
        linked = fleet.submit(shop.add, (6, 7), link=shop.add.s(100).set(task_id="after"))
        retried = fleet.submit(shop.flaky, (2,))
        failing = fleet.submit(shop.fail)
        expired = fleet.submit(shop.add, (0, 0), expires=-10)
        many = fleet.submit_many(shop.add, [(n, n) for n in range(MANY)])
        assert many.counts() == {ACCEPTED: MANY}
        assert [result(shop, s) for s in (one, named, late, linked)] == [23, 3, 9, 13]
        assert shop.app.AsyncResult("after").get(timeout=PATIENCE_S) == 113
        assert result(shop, retried) == 2
        with pytest.raises(ValueError, match="as asked"):
            result(shop, failing)
        with pytest.raises(TaskRevokedError):
            result(shop, expired)
        assert [result(shop, s) for s in many] == [2 * n for n in range(MANY)]

    def test_in_order_and_the_urgent_first(self, live: Live, shop: Any, app: str) -> None:
        fleet = shop.fleet
        waiting = {
            priority: fleet.submit_many(shop.nap, [(0.0,)] * 15, priority=priority)
            for priority in (9, 0, 3)
        }
        single = [fleet.submit(shop.nap, (0.0,), priority=0) for _ in range(5)]
        # kombu's own order over the priorities is that of its steps.
        start(live, app)
        began = {
            priority: [result(shop, s)[0] for s in submissions]
            for priority, submissions in waiting.items()
        }
        began[0] += [result(shop, s)[0] for s in single]
        for priority, starts in began.items():
            assert starts == sorted(starts), f"priority {priority} is out of order"
        assert max(began[0]) < min(began[3])
        assert max(began[3]) < min(began[9])


def test_what_a_task_submits_are_its_children(live: Live, shop: Any) -> None:
    start(live, APP)
    parent = shop.fleet.submit(shop.outer, (3,))
    ids = result(shop, parent)
    assert [shop.app.AsyncResult(id_).get(timeout=PATIENCE_S) for id_ in ids] == [0, 2, 4]
    assert [child.id for child in shop.app.AsyncResult(parent.id).children] == ids
