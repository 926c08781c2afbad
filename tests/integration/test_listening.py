"""Who waits for a result hears of it: whenever it comes, however many wait, whatever breaks."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import group, states
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import GroupResult, ResultSet

from nxs_tasks.cli.server import free_port
from nxs_tasks.clock import wait_until
from tests.conftest import JSON, MakeApp, Server
from tests.integration.deliveries import Shop, stock_app

pytest_plugins = ["tests.integration.deliveries_fixtures"]

PATIENCE_S = 30.0


class Elsewhere:
    """A worker of stock Celery, as far as a client can tell: it stores results."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def store(self, result: Any, value: Any, state: str = states.SUCCESS) -> None:
        self._app.backend.store_result(result.id, value, state)

    def when_waited_for(self, result: Any, value: Any) -> threading.Thread:
        """Store it in a thread, as soon as somebody has subscribed to it."""

        def work() -> None:
            assert wait_until(lambda: self.listeners(result) > 0, PATIENCE_S)
            self.store(result, value)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def listeners(self, *results: Any) -> int:
        """Who is subscribed to these results."""
        backend = self._app.backend
        names = [backend.get_key_for_task(r.id) for r in results]
        return sum(count for _, count in backend.client.pubsub_numsub(*names))


@pytest.fixture
def elsewhere(url: str) -> Iterator[Elsewhere]:
    with stock_app(url) as app:
        yield Elsewhere(app)


def interposed(backend: Any, name: str, first: Callable[[], object]) -> None:
    """Have something happen once, just before a method of the client's listener runs."""
    listener = backend.result_consumer
    method = getattr(listener, name)

    def once(*args: Any) -> Any:
        setattr(listener, name, method)
        first()
        return method(*args)

    setattr(listener, name, once)


class TestOneResult:
    def test_that_is_there_already_is_looked_up(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = here.add.delay(1, 2)
        elsewhere.store(result, 3)
        assert result.get(timeout=PATIENCE_S) == 3
        stats: Any = here.store.client.info("commandstats")
        before = int(stats.get("cmdstat_subscribe", {}).get("calls", 0))
        late = here.add.delay(1, 2)
        elsewhere.store(late, 3)
        assert late.get(timeout=PATIENCE_S) == 3
        stats = here.store.client.info("commandstats")
        assert int(stats.get("cmdstat_subscribe", {}).get("calls", 0)) == before

    def test_that_comes_while_it_is_waited_for(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = here.add.delay(1, 2)
        worker = elsewhere.when_waited_for(result, 3)
        assert result.get(timeout=PATIENCE_S) == 3
        worker.join(PATIENCE_S)
        assert wait_until(lambda: elsewhere.listeners(result) == 0, PATIENCE_S), "unsubscribed"

    @pytest.mark.parametrize("moment", ["_subscribe", "_await_confirmation", "_look_at"])
    def test_that_comes_between_the_look_and_the_subscription(
        self, here: Shop, elsewhere: Elsewhere, moment: str
    ) -> None:
        result = here.add.delay(1, 2)
        interposed(here.app.backend, moment, lambda: elsewhere.store(result, 3))
        assert result.get(timeout=PATIENCE_S) == 3

    def test_of_a_failure(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = here.fail.delay()
        elsewhere.store(result, ValueError("as asked"), states.FAILURE)
        with pytest.raises(ValueError, match="as asked"):
            result.get(timeout=PATIENCE_S)

    def test_of_a_task_that_somebody_else_has_sent(self, here: Shop, elsewhere: Elsewhere) -> None:
        worker = elsewhere.when_waited_for(here.app.AsyncResult("t1"), 3)
        assert here.app.AsyncResult("t1").get(timeout=PATIENCE_S) == 3
        worker.join(PATIENCE_S)

    def test_that_does_not_come_in_time_can_be_waited_for_again(
        self, here: Shop, elsewhere: Elsewhere
    ) -> None:
        result = here.add.delay(1, 2)
        with pytest.raises(CeleryTimeout):
            result.get(timeout=0.05)
        elsewhere.store(result, 3)
        assert result.get(timeout=PATIENCE_S) == 3

    def test_states_on_the_way_are_told(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = here.add.delay(1, 2)
        seen: list[str] = []

        def work() -> None:
            assert wait_until(lambda: elsewhere.listeners(result) > 0, PATIENCE_S)
            elsewhere.store(result, {"percent": 50}, "PROGRESS")
            assert wait_until(lambda: "PROGRESS" in seen, PATIENCE_S)
            elsewhere.store(result, 3)

        worker = threading.Thread(target=work)
        worker.start()
        got = result.get(timeout=PATIENCE_S, on_message=lambda meta: seen.append(meta["status"]))
        worker.join(PATIENCE_S)
        assert got == 3
        assert seen == ["PROGRESS", "SUCCESS"]

    def test_a_callback_is_called_for_what_came_before_it(
        self, here: Shop, elsewhere: Elsewhere
    ) -> None:
        """Nobody subscribed when the task was sent, so nobody heard."""
        early, late = here.add.delay(1, 2), here.add.delay(3, 4)
        elsewhere.store(early, 3)
        called: list[Any] = []
        early.then(lambda result: called.append(result.result))
        worker = elsewhere.when_waited_for(late, 7)
        assert late.get(timeout=PATIENCE_S) == 7
        worker.join(PATIENCE_S)
        assert called == [3]

    def test_nobody_keeps_what_was_dropped(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = here.add.delay(1, 2)
        result.then(lambda _: None, weak=True)
        assert here.app.backend.result_consumer._noted
        del result
        gc.collect()
        assert not here.app.backend.result_consumer._noted


class TestManyResults:
    COUNT = 120

    def results(self, here: Shop) -> list[Any]:
        return [here.add.delay(n, 0) for n in range(self.COUNT)]

    def store_all(self, elsewhere: Elsewhere, results: list[Any]) -> threading.Thread:
        """Half of them at once, the rest when somebody waits for it; the last ones first."""
        half = len(results) // 2

        def work() -> None:
            for n in reversed(range(half)):
                elsewhere.store(results[n], n)
            assert wait_until(lambda: elsewhere.listeners(*results[half:]) > 0, PATIENCE_S)
            for n in reversed(range(half, len(results))):
                elsewhere.store(results[n], n)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def test_of_a_set(self, here: Shop, elsewhere: Elsewhere) -> None:
        results = self.results(here)
        worker = self.store_all(elsewhere, results)
        assert ResultSet(results).get(timeout=PATIENCE_S) == list(range(self.COUNT))
        worker.join(PATIENCE_S)

    def test_one_after_the_other(self, here: Shop, elsewhere: Elsewhere) -> None:
        results = self.results(here)
        worker = self.store_all(elsewhere, results)
        assert ResultSet(results).join(timeout=PATIENCE_S) == list(range(self.COUNT))
        worker.join(PATIENCE_S)

    def test_as_they_come(self, here: Shop, elsewhere: Elsewhere) -> None:
        results = self.results(here)
        worker = self.store_all(elsewhere, results)
        came = dict(ResultSet(results).iter_native(timeout=PATIENCE_S))
        worker.join(PATIENCE_S)
        assert [came[r.id]["result"] for r in results] == list(range(self.COUNT))

    def test_of_a_group(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = group(here.add.s(n, 0) for n in range(self.COUNT))()
        worker = self.store_all(elsewhere, result.results)
        assert result.join_native(timeout=PATIENCE_S) == list(range(self.COUNT))
        worker.join(PATIENCE_S)

    def test_of_a_group_that_was_kept(self, here: Shop, elsewhere: Elsewhere) -> None:
        result = group(here.add.s(n, 0) for n in range(5))()
        result.save()
        for n, member in enumerate(result.results):
            elsewhere.store(member, n)
        kept = GroupResult.restore(result.id, app=here.app)
        assert kept.get(timeout=PATIENCE_S) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("shared", [False, True], ids=["a backend each", "one backend"])
    def test_in_many_threads(
        self, url: str, make_app: MakeApp, elsewhere: Elsewhere, shared: bool
    ) -> None:
        here = Shop(make_app(url, {**JSON, "result_backend_thread_safe": shared}))

        def wait(start: int) -> list[int]:
            results = [here.add.delay(start, n) for n in range(20)]
            workers = [elsewhere.when_waited_for(r, start + n) for n, r in enumerate(results[::4])]
            for n, r in enumerate(results):
                if n % 4:
                    elsewhere.store(r, start + n)
            got = [r.get(timeout=PATIENCE_S) for r in results]
            for worker in workers:
                worker.join(PATIENCE_S)
            return got

        with ThreadPoolExecutor(6) as threads:
            got = list(threads.map(wait, range(0, 600, 100)))
        expected = [
            [start + (n // 4 if n % 4 == 0 else n) for n in range(20)]
            for start in range(0, 600, 100)
        ]
        assert got == expected


class TestASubmission:
    """`delay()` asks the result backend nothing."""

    def submit(self, here: Shop) -> None:
        here.add.delay(1, 2)
        group(here.add.s(n, 0) for n in range(3))()
        here.app.send_task("shop.add", (1, 2))

    def test_does_not_need_a_backend_that_answers(self, url: str, make_app: MakeApp) -> None:
        nobody = f"redis://127.0.0.1:{free_port()}/0"
        here = Shop(make_app(url, {**JSON, "result_backend": nobody}))
        self.submit(here)
        assert len(here.waiting()) == 5

    def test_does_not_hang_with_a_backend_that_hangs(
        self, url: str, own_server: Server, make_app: MakeApp
    ) -> None:
        here = Shop(make_app(url, {**JSON, "result_backend": own_server.url}))
        own_server.freeze()
        try:
            self.submit(here)
        finally:
            own_server.thaw()
        assert len(here.waiting()) == 5

    def test_leaves_no_subscription_behind(self, here: Shop) -> None:
        self.submit(here)
        assert here.store.client.pubsub_channels("celery-task-meta-*") == []


class TestAServerThatGoesAway:
    def waiting(self, here: Shop, result: Any) -> tuple[ThreadPoolExecutor, Any]:
        thread = ThreadPoolExecutor(1)
        # A backend belongs to a thread.
        fetch = thread.submit(lambda: here.app.AsyncResult(result.id).get(timeout=PATIENCE_S))
        return thread, fetch

    @pytest.mark.parametrize("when", ["later", "at once"])
    def test_and_comes_back(
        self, url: str, own_server: Server, make_app: MakeApp, when: str
    ) -> None:
        here = Shop(make_app(url, {**JSON, "result_backend": own_server.url}))
        with stock_app(own_server.url) as app:
            elsewhere, result = Elsewhere(app), here.app.AsyncResult("t1")
            thread, fetch = self.waiting(here, result)
            with thread:
                assert wait_until(lambda: elsewhere.listeners(result) > 0, PATIENCE_S)
                own_server.kill()
                own_server.start()
                if when == "later":
                    assert wait_until(lambda: elsewhere.listeners(result) > 0, PATIENCE_S)
                elsewhere.store(result, 3)
                assert fetch.result(PATIENCE_S) == 3

    @pytest.mark.parametrize("closed_by", ["server", "client"])
    def test_and_nobody_notices(self, here: Shop, elsewhere: Elsewhere, closed_by: str) -> None:
        """The client reconnects by itself when it subscribes to the next result."""
        early, late = here.add.delay(1, 2), here.add.delay(3, 4)
        called: list[Any] = []
        early.then(lambda result: called.append(result.result))
        listener = here.app.backend.result_consumer
        listener.drain_events(timeout=0.01)
        assert elsewhere.listeners(early) == 1
        if closed_by == "server":
            here.store.client.client_kill_filter(_type="pubsub")
        else:
            listener._pubsub.connection.disconnect()
            assert wait_until(lambda: elsewhere.listeners(early) == 0, PATIENCE_S)
        elsewhere.store(early, 3)
        worker = elsewhere.when_waited_for(late, 7)
        assert late.get(timeout=PATIENCE_S) == 7
        worker.join(PATIENCE_S)
        assert called == [3]

    def test_only_for_this_client(self, here: Shop, elsewhere: Elsewhere) -> None:
        """Its connection is closed, and what is told before it is back nobody hears."""
        result = here.app.AsyncResult("t1")
        thread, fetch = self.waiting(here, result)
        with thread:
            assert wait_until(lambda: elsewhere.listeners(result) > 0, PATIENCE_S)
            pipe = here.store.client.pipeline(transaction=True)
            pipe.client_kill_filter(_type="pubsub")
            backend = elsewhere._app.backend
            meta = backend.encode(
                {"status": "SUCCESS", "result": 3, "task_id": "t1", "children": []}
            )
            pipe.set(backend.get_key_for_task("t1"), meta)
            pipe.publish(backend.get_key_for_task("t1"), meta)
            pipe.execute()
            assert fetch.result(PATIENCE_S) == 3


def test_a_forked_process_hears_too(here: Shop, elsewhere: Elsewhere) -> None:
    first = here.add.delay(1, 2)
    worker = elsewhere.when_waited_for(first, 3)
    assert first.get(timeout=PATIENCE_S) == 3
    worker.join(PATIENCE_S)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def fetch() -> None:
        theirs.send(here.app.AsyncResult("t2").get(timeout=PATIENCE_S))

    child = context.Process(target=fetch, daemon=True)
    child.start()
    worker = elsewhere.when_waited_for(here.app.AsyncResult("t2"), 7)
    assert ours.poll(PATIENCE_S)
    assert ours.recv() == 7
    worker.join(PATIENCE_S)
    child.join(PATIENCE_S)
