"""`delay()` of a real app while its broker refuses, freezes, is silent, is full or only reads."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from nxs_tasks import breaker
from nxs_tasks.clock import wait_until
from nxs_tasks.control.jobs import run_job
from nxs_tasks.errors import SubmissionRejected
from nxs_tasks.submission.batches import rows
from nxs_tasks.submission.outcome import SubmitOutcome
from tests.conftest import MakeApp, Server, add_instance, new_store
from tests.integration.black_hole import silent_server, unreachable_server
from tests.integration.outages import PATIENCE_S, Shop, sent

#: Ends a trouble.
End = Callable[[], object]


@pytest.fixture
def shop(make_app: MakeApp, own_server: Server) -> Shop:
    return Shop(make_app, own_server.url)


def freeze(server: Server) -> End:
    server.freeze()
    return server.thaw


def kill(server: Server) -> End:
    server.kill()
    return server.start


def fill_memory(server: Server) -> End:
    client = new_store(server.url).client
    client.config_set("maxmemory", "1")
    return lambda: client.config_set("maxmemory", "0")


def only_read(server: Server) -> End:
    client = new_store(server.url).client
    client.replicaof("127.0.0.1", "1")
    return lambda: client.replicaof("NO", "ONE")


def change_password(server: Server) -> End:
    client: Any = new_store(server.url).client
    client.config_set("requirepass", "new")
    client.execute_command("AUTH", "new")
    client.client_kill_filter(_type="normal", skipme=True)
    return lambda: client.config_set("requirepass", "")


TROUBLES = {
    "frozen": freeze,
    "killed": kill,
    "out of memory": fill_memory,
    "read-only": only_read,
    "another password": change_password,
}


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest) -> Callable[[Server], End]:
    return TROUBLES[request.param]


class TestOutage:
    @pytest.mark.parametrize("connected", [True, False], ids=["connected", "not connected"])
    def test_every_task_is_answered_in_time_and_sent_once(
        self,
        shop: Shop,
        own_server: Server,
        trouble: Callable[[Server], End],
        connected: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        before = shop.submit(3) if connected else []
        end = trouble(own_server)
        during = shop.submit(30, first=3)
        assert set(shop.kept()) == set(during)
        told = [r.getMessage() for r in caplog.records if "tasks are kept in" in r.getMessage()]
        assert len(told) == 1
        assert own_server.url in told[0]
        end()
        assert shop.drained(own_server.url) == before + during
        assert wait_until(lambda: not shop.fleet.runtime.breaker.open, PATIENCE_S)
        after = shop.submit(2, first=33)
        assert shop.kept() == []
        assert sent(new_store(own_server.url)) == before + during + after

    def test_a_frozen_server_that_takes_it_when_everybody_has_gone(
        self, shop: Shop, own_server: Server
    ) -> None:
        """The command lies in the server's socket, and is carried out after the thaw."""
        shop.submit(1)
        threads = [threading.Thread(target=shop.submit, args=(1, n)) for n in range(1, 9)]
        own_server.freeze()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        tried = [row for row in rows(shop.fleet.outbox.spool, 100) if row.producer]
        assert tried
        own_server.thaw()
        found = shop.drained(own_server.url)
        assert (len(found), len(set(found))) == (9, 9)

    def test_many_threads_pay_once(self, shop: Shop, own_server: Server) -> None:
        shop.submit(1)
        own_server.freeze()
        ids: list[str] = []

        def submit(n: int) -> None:
            ids.extend(shop.submit(5, first=5 * n))

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(ids) == 150
        own_server.thaw()
        found = shop.drained(own_server.url)
        assert sorted(found[1:]) == sorted(ids)

    def test_a_server_that_never_accepts(self, make_app: MakeApp) -> None:
        with unreachable_server() as url:
            shop = Shop(make_app, url)
            ids = shop.submit(20)
            assert shop.kept() == ids

    def test_a_server_that_never_answers_is_not_asked_for_each_task(
        self, make_app: MakeApp
    ) -> None:
        with silent_server() as (url, connections):
            shop = Shop(make_app, url)
            ids = shop.submit(100)
            assert shop.kept() == ids
            assert connections() < 50

    def test_a_name_that_nobody_resolves(self, make_app: MakeApp) -> None:
        shop = Shop(make_app, "redis://no-such-host.invalid/0")
        ids = shop.submit(5)
        assert shop.kept() == ids

    @pytest.mark.parametrize("first", ["a chord", "a task"])
    def test_a_chord_is_sent_as_a_whole_or_not_at_all(
        self, shop: Shop, own_server: Server, trouble: Callable[[Server], End], first: str
    ) -> None:
        """Its parts are counted where results are kept, and that is away as well."""
        shop.submit(1)
        end = trouble(own_server)
        if first == "a task":
            shop.submit(1)
        before = shop.kept()
        parts = group(shop.pay.s(n) for n in range(3))
        for canvas in (chord(parts, shop.pay.s()), parts | shop.pay.s()):
            with pytest.raises((SubmissionRejected, RedisError)):
                shop.timed(canvas.apply_async)
        assert shop.kept() == before
        end()
        shop.drained(own_server.url)
        chord(parts, shop.pay.s())()
        assert new_store(own_server.url).client.llen("celery") == 1 + len(before) + 3

    def test_each_way_to_submit_is_covered(self, shop: Shop, own_server: Server) -> None:
        shop.submit(1)
        own_server.freeze()
        calls: list[Callable[[], Any]] = [
            lambda: shop.pay.apply_async((1,), countdown=5, expires=60, priority=6),
            lambda: shop.app.send_task("shop.pay", (1,)),
            lambda: group(shop.pay.s(n) for n in range(3))(),
            lambda: chain(shop.pay.s(1), shop.pay.s(2))(),
            lambda: shop.pay.apply_async((1,), queue="mine"),
            lambda: shop.pay.apply_async((1,), retry=True, retry_policy={"max_retries": None}),
        ]
        for call in calls:
            shop.timed(call)
        assert len(shop.kept()) == 8
        own_server.thaw()
        shop.drained(own_server.url)
        store = new_store(own_server.url)
        lengths = [store.client.llen(key) for key in ("celery", "celery\x06\x166", "mine")]
        assert lengths == [7, 1, 1]

    def test_submit_says_what_became_of_it(self, shop: Shop, own_server: Server) -> None:
        before = shop.fleet.submit(shop.pay, (0,))
        own_server.freeze()
        one = shop.timed(lambda: shop.fleet.submit(shop.pay, (1,)))
        tasks = [(n,) for n in range(2, 1200)]
        many = shop.timed(lambda: shop.fleet.submit_many(shop.pay, tasks))
        own_server.thaw()
        assert before.outcome is SubmitOutcome.ACCEPTED
        assert {s.outcome for s in (one, *many)} == {SubmitOutcome.SPOOLED}
        assert own_server.url in many[-1].reason
        ids = [before.id, one.id, *(s.id for s in many)]
        assert shop.drained(own_server.url) == ids

    def test_what_was_meant_for_an_instance_is_kept_for_the_shared_queue(
        self, shop: Shop, own_server: Server
    ) -> None:
        """The instance may be gone, and forgotten, when the broker is back."""
        add_instance(new_store(own_server.url), "w1", slots=50, cores=4)
        [placed] = shop.submit(1)
        own_server.freeze()
        shop.pay.apply_async((1,), priority=3)
        [row] = rows(shop.fleet.outbox.spool, 10)
        message = json.loads(row.message)
        assert row.list == "celery\x06\x163"
        assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}
        own_server.thaw()
        shop.drained(own_server.url)
        store = new_store(own_server.url)
        assert sent(store, store.keys.own_queue("w1")) == [placed]


class TestRejected:
    def test_a_full_spool_is_told(self, make_app: MakeApp, own_server: Server) -> None:
        shop = Shop(make_app, own_server.url, spool_limit=0.2)
        own_server.freeze()
        with pytest.raises(SubmissionRejected) as rejected:
            shop.submit(500)
        assert isinstance(rejected.value, OperationalError)
        assert "spool_limit" in str(rejected.value)
        assert own_server.url in str(rejected.value)
        count = len(shop.kept())
        assert count > 10
        own_server.thaw()
        assert len(shop.drained(own_server.url)) == count

    def test_a_state_directory_that_is_none(
        self, make_app: MakeApp, own_server: Server, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        shop = Shop(make_app, own_server.url, state_dir=tmp_path / "file" / "state")
        own_server.kill()
        with pytest.raises(SubmissionRejected, match="NXS_STATE_DIR"):
            shop.submit(1)

    def test_a_queue_that_is_no_list(self, shop: Shop, own_server: Server) -> None:
        new_store(own_server.url).client.set("celery", "x")
        with pytest.raises(SubmissionRejected, match="WRONGTYPE"):
            shop.submit(1)
        assert shop.kept() == []
        assert not shop.fleet.runtime.breaker.open

    def test_control_tasks_are_not_kept(self, shop: Shop, own_server: Server) -> None:
        own_server.freeze()
        with pytest.raises(SubmissionRejected):
            shop.timed(lambda: shop.app.send_task("nxs.control.lifecycle"))
        assert shop.kept() == []
        own_server.thaw()

    def test_no_password_is_told(self, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        with silent_server() as (url, _), caplog.at_level(logging.DEBUG):
            shop = Shop(make_app, url.replace("://", "://:hunter2@"), spool_limit=0.2)
            with pytest.raises(SubmissionRejected) as rejected:
                shop.submit(500)
        assert "hunter2" not in str(rejected.value) + caplog.text
        assert b"hunter2" not in shop.fleet.outbox.spool.path.read_bytes()


class TestEvents:
    def test_the_event_that_a_task_was_sent_costs_no_time(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        shop = Shop(make_app, own_server.url, conf={"task_send_sent_event": True})
        shop.submit(1)
        own_server.freeze()
        shop.submit(3)
        assert len(shop.kept()) == 3
        own_server.thaw()
        assert len(shop.drained(own_server.url)) == 4


class TestLeftovers:
    def test_another_process_of_the_app_sends_them(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        first = Shop(make_app, own_server.url)
        own_server.kill()
        ids = first.submit(5)
        first.fleet.outbox.close()
        own_server.start()
        second = Shop(make_app, own_server.url)
        [own] = second.submit(1)
        found = second.drained(own_server.url)
        assert sorted(found) == sorted([*ids, own])

    def test_another_broker_is_sent_nothing(
        self, make_app: MakeApp, own_server: Server, url: str
    ) -> None:
        first = Shop(make_app, own_server.url)
        own_server.kill()
        ids = first.submit(5)
        second = Shop(make_app, url)
        [own] = second.submit(1)
        assert second.fleet.outbox.drain().sent == 0
        assert sent(new_store(url)) == [own]
        assert first.kept() == ids

    def test_a_control_job_has_them_sent(self, make_app: MakeApp, own_server: Server) -> None:
        first = Shop(make_app, own_server.url)
        own_server.kill()
        ids = first.submit(2)
        first.fleet.outbox.close()
        own_server.start()
        second = Shop(make_app, own_server.url)
        run_job(second.fleet.runtime, "record", "control@t")
        assert second.drained(own_server.url) == ids


class TestProcess:
    def test_the_thread_ends_when_nothing_waits(self, shop: Shop, own_server: Server) -> None:
        def threads() -> list[threading.Thread]:
            return [t for t in threading.enumerate() if t.name == "nxs-outbox" and t.is_alive()]

        assert wait_until(lambda: not threads(), PATIENCE_S)  # of the tests before
        shop.submit(1)
        assert threads() == []
        for number in range(2):
            own_server.kill()
            shop.submit(1, first=number)
            assert len(threads()) == 1
            own_server.start()
            shop.drained(own_server.url)
            assert wait_until(lambda: not threads(), PATIENCE_S)

    def test_a_fork_finds_out_by_itself(self, shop: Shop, own_server: Server) -> None:
        shop.submit(1)
        own_server.kill()
        shop.submit(2)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                shop.submit(3)
                thread = shop.fleet.outbox._thread
                wanted = thread is not None and thread.is_alive() and len(shop.kept()) == 5
                status = 0 if wanted else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        own_server.start()
        assert len(shop.drained(own_server.url)) == 6

    def test_where_no_thread_runs_a_message_finds_out(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, own_server: Server
    ) -> None:
        monkeypatch.setattr(shop.fleet.outbox, "start", lambda: None)
        shop.fleet.outbox.trip("away")
        kept = shop.submit(1)
        monkeypatch.setattr(breaker, "OVERDUE_S", 0.0)
        direct = shop.submit(2)
        assert (shop.kept(), sent(new_store(own_server.url))) == (kept, direct)
        assert not shop.fleet.runtime.breaker.open

    def test_who_ends_says_what_it_leaves(self, own_server: Server, tmp_path: Path) -> None:
        own_server.kill()
        code = (
            "from tests.integration.submitting import make; import sys\n"
            "fleet = make(*sys.argv[1:]); fleet.app.send_task('shop.pay', ignore_result=True)"
        )
        argv = [sys.executable, "-c", code, own_server.url, str(tmp_path)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert "1 task(s) wait in" in ended.stderr
        assert "nxs spool drain" in ended.stderr

    def test_samples_of_placements_cost_no_time(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        shop = Shop(make_app, own_server.url, placement_sample=1.0)
        add_instance(new_store(own_server.url), "w1", slots=50, cores=4)
        shop.submit(2)
        own_server.freeze()
        shop.submit(5)
        assert len(shop.kept()) == 5
        own_server.thaw()
        shop.drained(own_server.url)
