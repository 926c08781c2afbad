"""Beats of which one leads, each as the scheduler of a machine of its own, on a real server."""

from __future__ import annotations

import json
import logging
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, crontab
from kombu import Exchange, Queue

from nxs_tasks.clock import SYSTEM, FakeClock, wait_until
from nxs_tasks.control import jobs
from nxs_tasks.control.beat import FleetScheduler
from nxs_tasks.model.lead import Run
from nxs_tasks.runtime import ATTRIBUTE, Runtime
from nxs_tasks.store import FleetStore
from nxs_tasks.store.leases import BeatLease, as_text
from nxs_tasks.submission.spool import Spool
from tests.conftest import MakeApp, Server, add_instance, new_store

DAY_S = 86_400.0
OFTEN = {"often": {"task": "shop.often", "schedule": 60.0}}
PATIENCE_S = 20.0


def remember(store: FleetStore, entry: str, at: float, count: int) -> None:
    """As if an earlier leader had sent so many runs, the last one then."""
    text = as_text(Run(at=at, count=count))
    store.client.hset(store.keys.beat_runs("shop"), entry, text)


class Node(Runtime):
    """The runtime of another machine: two beats of one process would be one holder."""

    name: str

    def identity(self) -> str:
        return self.name


class Beats:
    """Makes beats."""

    def scheduler(
        self,
        make_app: MakeApp,
        url: str,
        name: str,
        entries: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[FleetScheduler, FakeClock]:
        """A beat of its own machine, with the entry `often` (each minute) or those given."""
        entries = OFTEN if entries is None else entries
        # The jobs of the control plane are not due while a test runs.
        quiet = {f"{name}_period": DAY_S for name in jobs.JOBS}
        clock = FakeClock()
        fleet = make_app(
            url, {"beat_schedule": entries}, clock=clock, beat_lease=15.0, **{**quiet, **settings}
        )
        node = Node(fleet.app, fleet.runtime.sourced, clock)
        node.name = name
        setattr(fleet.app, ATTRIBUTE, node)
        return FleetScheduler(fleet.app), clock

    def sent(self, store: FleetStore) -> int:
        return int(store.client.llen("celery"))

    def messages(self, store: FleetStore) -> list[Any]:
        return [json.loads(str(raw)) for raw in store.client.lrange("celery", 0, -1)]

    def make_due(self, scheduler: FleetScheduler, name: str = "often", by: float = 100.0) -> None:
        """Let the last run of an entry be so long ago."""
        entry = scheduler.schedule[name]
        entry.last_run_at = datetime.fromtimestamp(SYSTEM.now() - by, UTC)
        scheduler._heap = None

    def daily(self) -> dict[str, Any]:
        """Once a day, twelve hours from now; the time it was due last is twelve hours ago."""
        at = datetime.fromtimestamp(SYSTEM.now() + DAY_S / 2, UTC)
        return {"daily": {"task": "shop.daily", "schedule": crontab(at.minute, at.hour)}}


class TestBeat(Beats):
    def test_one_of_two_leads_and_sends(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        for beat_ in (a, b):
            self.make_due(beat_)
        assert (a.tick(), b.tick()) == (0, 5.0)
        assert BeatLease(store, "shop", "", 1).holder() == "a/1"
        assert self.sent(store) == 1
        self.make_due(b)
        for _ in range(3):
            assert b.tick() == 5.0
        assert self.sent(store) == 1

    def test_the_pause_is_never_longer_than_a_third_of_the_lease(
        self, make_app: MakeApp, url: str
    ) -> None:
        a, _ = self.scheduler(make_app, url, "a/1", self.daily())
        assert a.tick() == 5.0

    def test_the_lease_is_renewed_in_time(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, clock = self.scheduler(make_app, url, "a/1")
        a.tick()
        key = store.keys.beat_lease("shop")
        store.client.pexpire(key, 10_000)
        clock.advance(4.9)
        a.tick()
        assert store.client.pttl(key) <= 10_000
        clock.advance(0.2)
        a.tick()
        assert 14_000 < store.client.pttl(key) <= 15_000

    def test_who_resigns_hands_over_at_once(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        a.tick()
        b.close()
        assert BeatLease(store, "shop", "", 1).holder() == "a/1"
        a.close()
        assert BeatLease(store, "shop", "", 1).holder() is None
        remember(store, "often", SYSTEM.now() - 100, 0)
        assert b.tick() == 0
        assert BeatLease(store, "shop", "", 1).holder() == "b/1"
        assert self.sent(store) == 1

    def test_who_has_lost_the_lease_sends_no_more(
        self, make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(url)
        a, clock = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        a.tick()
        store.client.delete(store.keys.beat_lease("shop"))  # it ran out: a was frozen for 20 s
        clock.advance(20.0)
        b.tick()
        self.make_due(a)
        assert a.tick() == 5.0
        assert self.sent(store) == 0
        assert BeatLease(store, "shop", "", 1).holder() == "b/1"
        assert "has lost the lead of term 1" in caplog.text

    def fail(self, scheduler: FleetScheduler, store: FleetStore, times: int) -> None:
        """Have so many sendings in a row fail: the queue is no list."""
        store.client.set("celery", "no list")
        for _ in range(times):
            self.make_due(scheduler)
            scheduler.tick()
        store.client.delete("celery")

    def test_who_cannot_send_lets_another_lead_and_tries_again(
        self, make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(url)
        a, clock = self.scheduler(make_app, url, "a/1")
        self.fail(a, store, 3)
        assert BeatLease(store, "shop", "", 1).holder() == "a/1"
        self.make_due(a)
        assert a.tick() == 5.0
        assert "gives up the lead" in caplog.text
        assert (BeatLease(store, "shop", "", 1).holder(), self.sent(store)) == (None, 0)
        clock.advance(5.0)
        assert a.tick() == 0, "what could not be sent is sent when it can"
        assert (BeatLease(store, "shop", "", 1).holder(), self.sent(store)) == ("a/1", 1)

    def test_who_fails_now_and_then_keeps_the_lead(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        for _ in range(3):
            self.fail(a, store, 2)
            self.make_due(a)
            a.tick()
            assert self.sent(store) == 1
        assert a.producer is None  # of its own; Celery's pool goes by the outbox
        assert BeatLease(store, "shop", "", 1).holder() == "a/1"

    def test_a_successor_goes_on_from_the_last_runs(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        self.make_due(b)
        for _ in range(2):
            self.make_due(a)
            a.tick()
        assert a.schedule["often"].total_run_count == 2
        a.close()
        assert b.tick() > 0  # b's own memory says that it is due, but a has just sent it
        assert self.sent(store) == 2
        assert b.schedule["often"].total_run_count == 2
        assert b.schedule["often"].last_run_at == a.schedule["often"].last_run_at

    def test_who_leads_again_goes_on_from_the_runs_of_the_one_between(
        self, make_app: MakeApp, url: str
    ) -> None:
        store = new_store(url)
        a, clock = self.scheduler(make_app, url, "a/1")
        assert a.tick() == 5.0  # not due for a minute
        store.client.delete(store.keys.beat_lease("shop"))
        between = BeatLease(store, "shop", "b/1", 15)
        assert between.acquire().term == 2
        remember(store, "often", SYSTEM.now() - 100, 9)
        between.resign()
        clock.advance(6.0)
        assert a.tick() == 0
        assert self.sent(store) == 1
        assert a.schedule["often"].total_run_count == 10

    @pytest.mark.parametrize(("hours_ago", "runs"), [(11, 0), (13, 1), (100, 1)])
    def test_a_daily_entry_runs_once_a_day_whoever_leads(
        self, make_app: MakeApp, url: str, hours_ago: int, runs: int
    ) -> None:
        store = new_store(url)
        remember(store, "daily", SYSTEM.now() - hours_ago * 3600.0, 7)
        for name in ("b/1", "c/1"):
            successor, _ = self.scheduler(make_app, url, name, self.daily())
            for _ in range(3):
                successor.tick()
            successor.close()
            assert self.sent(store) == runs
        assert BeatLease(store, "shop", "", 15).runs()["daily"].count == 7 + runs

    def test_an_entry_that_is_no_longer_there_is_passed_over(
        self, make_app: MakeApp, url: str
    ) -> None:
        store = new_store(url)
        remember(store, "removed", 1.0, 7)
        b, _ = self.scheduler(make_app, url, "b/1")
        self.make_due(b)
        b.tick()
        assert self.sent(store) == 1
        assert "removed" not in b.schedule

    def test_an_entry_that_has_never_run_counts_from_its_first_leader_on(
        self, make_app: MakeApp, url: str
    ) -> None:
        """Else it would begin anew with each process, and a daily one might never run."""
        a, _ = self.scheduler(make_app, url, "a/1")
        self.make_due(a, by=40.0)
        assert a.tick() == 5.0
        a.close()
        b, _ = self.scheduler(make_app, url, "b/1")
        b.tick()
        age = SYSTEM.now() - b.schedule["often"].last_run_at.timestamp()
        assert 40 <= age < 45

    def test_the_jobs_of_the_control_plane_expire_with_their_period(
        self, make_app: MakeApp, url: str
    ) -> None:
        a, _ = self.scheduler(make_app, url, "a/1", {})
        self.make_due(a, "nxs-lifecycle", by=2 * DAY_S)
        a.tick()
        raws: Any = new_store(url).client.lrange("nxs.control", 0, -1)
        [message] = map(json.loads, raws)
        assert message["headers"]["task"] == "nxs.control.lifecycle"
        expires = datetime.fromisoformat(message["headers"]["expires"]).timestamp()
        assert 0 < expires - SYSTEM.now() <= DAY_S

    def test_without_a_broker_nobody_leads_and_nothing_is_sent(
        self, make_app: MakeApp, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(own_server.url)
        a, clock = self.scheduler(make_app, own_server.url, "a/1")
        a.tick()
        remember(store, "often", SYSTEM.now() - 100, 0)
        own_server.kill()
        clock.advance(6.0)
        self.make_due(a)
        with caplog.at_level(logging.WARNING):
            assert a.tick() == 5.0
        assert "this beat stands by" in caplog.text
        assert a.schedule["often"].total_run_count == 0
        own_server.start()
        assert self.sent(store) == 0
        clock.advance(6.0)
        assert a.tick() == 0
        assert self.sent(store) == 1

    def test_it_starts_and_ends_without_a_broker(
        self, make_app: MakeApp, own_server: Server
    ) -> None:
        own_server.kill()
        a, _ = self.scheduler(make_app, own_server.url, "a/1")
        assert a.tick() == 5.0
        a.close()


class TestAtAnyMoment(Beats):
    """A leader dies, or freezes and wakes, or does not hear an answer: a run is sent once."""

    def take_over(self, store: FleetStore, successor: FleetScheduler) -> None:
        """The lease of whoever leads runs out, and another one leads."""
        store.client.delete(store.keys.beat_lease("shop"))
        successor.tick()

    def test_frozen_between_its_lease_and_its_write(
        self, make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        a.tick()
        remember(store, "often", SYSTEM.now() - 100, 3)
        self.take_over(store, b)
        assert self.sent(store) == 1
        self.make_due(a)  # it woke, and believes that it leads: its lease is fresh by its clock
        assert a.tick() == 0
        assert self.sent(store) == 1
        assert "often is not sent: a/1 does not lead in term 1" in caplog.text
        assert a.tick() == 5.0
        assert BeatLease(store, "shop", "", 1).holder() == "b/1"
        assert a.schedule["often"].total_run_count == 0

    def test_frozen_while_another_led_and_resigned(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        a.tick()
        remember(store, "often", SYSTEM.now() - 100, 3)
        self.take_over(store, b)
        b.close()
        self.make_due(a)
        assert [a.tick() for _ in range(2)] == [0, 5.0]
        assert (a.schedule["often"].total_run_count, self.sent(store)) == (4, 1)

    def test_frozen_until_its_lease_ran_out_and_nobody_took_it(
        self, make_app: MakeApp, url: str
    ) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        self.make_due(a, by=59.0)
        a.tick()
        remember(store, "often", SYSTEM.now() - 100, 0)
        store.client.delete(store.keys.beat_lease("shop"))
        self.make_due(a)
        assert a.tick() == 0
        assert self.sent(store) == 0
        assert a.tick() == 0
        assert self.sent(store) == 1
        assert BeatLease(store, "shop", "", 1).runs()["often"].term == 2

    def test_died_after_its_write(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        self.make_due(a)
        a.tick()  # nothing of it comes after the write
        b, _ = self.scheduler(make_app, url, "b/1")
        self.make_due(b)
        self.take_over(store, b)
        [message] = self.messages(store)
        run = BeatLease(store, "shop", "", 1).runs()["often"]
        assert (run.count, run.term, run.task_id) == (1, 1, message["headers"]["id"])
        assert b.schedule["often"].total_run_count == 1

    def test_died_between_two_entries(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        entries = {n: {"task": f"shop.{n}", "schedule": 60.0} for n in ("one", "two")}
        a, _ = self.scheduler(make_app, url, "a/1", entries)
        b, _ = self.scheduler(make_app, url, "b/1", entries)
        a.tick()
        for name in entries:
            remember(store, name, SYSTEM.now() - 100, 0)
        for each in (a, b):
            for name in entries:
                self.make_due(each, name)
        a._known = {name: as_text(run) for name, run in a._lease.runs().items()}
        assert a.tick() == 0
        store.client.delete(store.keys.beat_lease("shop"))
        assert [b.tick() for _ in range(2)] == [0, 5.0]
        assert sorted(m["headers"]["task"] for m in self.messages(store)) == [
            "shop.one",
            "shop.two",
        ]

    def test_did_not_hear_the_answer(self, make_app: MakeApp, own_server: Server) -> None:
        store = new_store(own_server.url)
        a, clock = self.scheduler(make_app, own_server.url, "a/1", submit_deadline=0.4)
        self.make_due(a)
        assert a.tick() == 0
        self.make_due(a)
        own_server.freeze()
        try:
            assert 0 < a.tick() <= 5.0
            assert a.schedule["often"].total_run_count == 1, "nobody knows, so it is due"
        finally:
            own_server.thaw()

        # What the server has taken in meanwhile is done now, before anything else.
        def knows() -> bool:
            clock.advance(6.0)
            return a.tick() >= 0 and a.schedule["often"].total_run_count == 2

        assert wait_until(knows, PATIENCE_S)
        assert a.tick() > 0
        assert self.sent(store) == 2
        assert not Spool(a._runtime.settings.state_path / "spool-default.db", 9).exists()

    def test_a_server_that_lost_its_data(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        self.make_due(a)
        a.tick()
        store.client.flushdb()
        self.make_due(a)
        assert [a.tick() for _ in range(3)] == [0, 0, 5.0]
        assert self.sent(store) == 1

    def test_a_run_that_another_has_counted(self, make_app: MakeApp, url: str) -> None:
        """Not even in its own term: whatever made that, it is seen."""
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        a.tick()
        remember(store, "often", SYSTEM.now() - 10, 8)
        self.make_due(a)
        assert [a.tick() for _ in range(2)] == [0, 5.0]
        assert (self.sent(store), a.schedule["often"].total_run_count) == (0, 8)


class TestTime(Beats):
    """All go by the server's clock."""

    def test_clocks_of_machines_may_differ(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a, _ = self.scheduler(make_app, url, "a/1")
        b, _ = self.scheduler(make_app, url, "b/1")
        off = {a: 600.0, b: -600.0}
        for each, seconds in off.items():
            each.app.now = lambda s=seconds: datetime.fromtimestamp(SYSTEM.now() + s, UTC)
            each.schedule["often"].last_run_at = each.app.now() - timedelta(seconds=100)
        a.tick()
        assert self.sent(store) == 1
        a.close()
        assert b.tick() == 5.0
        left = 60 - (SYSTEM.now() - BeatLease(store, "shop", "", 1).runs()["often"].at)
        assert 50 < left <= 61
        assert self.sent(store) == 1

    @pytest.mark.parametrize("step_s", [600.0, -600.0])
    def test_an_interval_goes_on_when_the_servers_clock_is_set(
        self, make_app: MakeApp, url: str, step_s: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(url)
        a, clock = self.scheduler(make_app, url, "a/1", {**self.daily(), **OFTEN})
        a.tick()
        # As if the server had told the time before it was set.
        a._time.set(store.now() - step_s, clock.elapsed())
        for name, ago in (("often", 50.0), ("daily", DAY_S / 4)):
            self.make_due(a, name, by=ago + step_s)
        a._asked_at = float("-inf")
        assert a.tick() == 5.0
        ages = {n: SYSTEM.now() - e.last_run_at.timestamp() for n, e in a.schedule.items()}
        assert ages["often"] == pytest.approx(50, abs=2)
        assert ages["daily"] == pytest.approx(DAY_S / 4 + step_s, abs=2)
        assert self.sent(store) == 0
        assert re.search(rf"was set by \{step_s:+.0f}\.\d s", caplog.text)

    def test_a_last_run_in_the_future_holds_no_interval_up(
        self, make_app: MakeApp, url: str
    ) -> None:
        """The server's clock was ahead, and was set back while nobody led."""
        store = new_store(url)
        remember(store, "often", SYSTEM.now() + 600, 3)
        a, _ = self.scheduler(make_app, url, "a/1")
        a.tick()
        age = SYSTEM.now() - a.schedule["often"].last_run_at.timestamp()
        assert 0 <= age < 5

    def test_a_schedule_with_a_clock_of_its_own_keeps_it(self, make_app: MakeApp, url: str) -> None:
        def own_clock() -> datetime:
            return datetime.fromtimestamp(SYSTEM.now() + 7200, UTC)

        own = {"own": {"task": "shop.own", "schedule": crontab(nowfun=own_clock)}}
        a, _ = self.scheduler(make_app, url, "a/1", own)
        a.tick()
        assert a.schedule["own"].schedule.nowfun is own_clock
        assert a.schedule["nxs-record"].schedule.nowfun == a._now


class TestEntries(Beats):
    """Whatever Celery's beat can send."""

    def once(self, scheduler: FleetScheduler, name: str = "one") -> Run:
        """Send an entry, and be asked again: it is not due any more."""
        self.make_due(scheduler, name)
        scheduler.tick()
        assert scheduler.tick() > 0
        return BeatLease(scheduler._runtime.store(), "shop", "", 1).runs()[name]

    def entry(self, make_app: MakeApp, url: str, **entry: Any) -> FleetScheduler:
        one = {"one": {"task": "shop.one", "schedule": 60.0, **entry}}
        return self.scheduler(make_app, url, "a/1", one)[0]

    def test_its_options_arguments_and_headers(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        options = {"expires": 30, "priority": 9, "headers": {"x": 1}, "task_id": "mine"}
        late = BeatLazyFunc(lambda: "now")
        a = self.entry(make_app, url, args=[1, late], kwargs={"k": 2}, options=options)
        run = self.once(a)
        [raw] = store.client.lrange("celery\x06\x169", 0, -1)
        message = json.loads(raw)
        headers = message["headers"]
        assert (headers["x"], headers["celery_beat_task"], headers["nxs_term"]) == (1, True, 1)
        assert (headers["id"], run.task_id) == ("mine", "mine")
        assert json.loads(b64decode(message["body"]))[:2] == [[1, "now"], {"k": 2}]
        expires = datetime.fromisoformat(headers["expires"]).timestamp()
        assert 0 < expires - SYSTEM.now() <= 30
        assert options["headers"] == {"x": 1}, "the user's own are not changed"

    def test_relative_ones(self, make_app: MakeApp, url: str) -> None:
        a = self.entry(make_app, url, schedule=timedelta(hours=1), relative=True)
        self.make_due(a, "one", by=3700.0)
        assert (a.tick(), a.tick()) == (0, 5.0)
        due = BeatLease(new_store(url), "shop", "", 1).runs()["one"].due
        assert due is not None
        assert due % 3600 == pytest.approx(0, abs=0.01)

    def test_a_schedule_of_the_users_own(self, make_app: MakeApp, url: str) -> None:
        class Once(BaseSchedule):
            def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
                return (self.now() - last_run_at).total_seconds() > 60, 60.0

        run = self.once(self.entry(make_app, url, schedule=Once()))
        assert (run.count, run.due) == (1, None)

    def test_when_it_is_due_next_is_kept(self, make_app: MakeApp, url: str) -> None:
        run = self.once(self.entry(make_app, url))
        assert (run.due or 0) - run.at == pytest.approx(60, abs=1)

    def test_one_task_of_a_key_at_a_time(
        self, make_app: MakeApp, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A run that is left out for that counts: else it would be tried again at once."""
        caplog.set_level(logging.INFO)
        store = new_store(url)
        a = self.entry(make_app, url, options={"headers": {"nxs_unique": "nightly"}})
        assert self.once(a).count == 1
        assert self.once(a).count == 2
        assert self.sent(store) == 1
        assert "has the unique_key 'nightly'" in caplog.text

    def test_a_frozen_leader_sends_no_task_of_a_key_either(
        self, make_app: MakeApp, url: str
    ) -> None:
        store = new_store(url)
        a = self.entry(make_app, url, options={"headers": {"nxs_unique": "nightly"}})
        a.tick()
        store.client.incr(store.keys.beat_term("shop"))
        self.make_due(a, "one")
        a.tick()
        assert self.sent(store) == 0
        assert store.client.exists(store.keys.unique("nightly")) == 0

    def test_to_an_instance_with_a_free_slot(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        add_instance(store, "w1@t", tasks=("shop.one",))
        run = self.once(self.entry(make_app, url))
        [raw] = store.client.lrange(store.keys.own_queue("w1@t"), 0, -1)
        assert json.loads(raw)["headers"]["id"] == run.task_id

    def test_a_frozen_leader_places_nothing_either(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        add_instance(store, "w1@t", tasks=("shop.one",))
        a = self.entry(make_app, url)
        a.tick()
        store.client.incr(store.keys.beat_term("shop"))
        self.make_due(a, "one")
        a.tick()
        assert store.client.llen(store.keys.own_queue("w1@t")) == self.sent(store) == 0

    def test_into_several_queues(self, make_app: MakeApp, url: str) -> None:
        store = new_store(url)
        a = self.entry(make_app, url, options={"exchange": "news", "routing_key": "x"})
        conf = a.app.conf
        news = Exchange("news", type="direct")
        conf.task_queues = [Queue(n, news, routing_key="x") for n in ("n1", "n2")]
        with a.app.connection_for_write() as connection:
            for queue in conf.task_queues:
                queue(connection).declare()
        assert self.once(a).count == 1
        assert [store.client.llen(n) for n in ("n1", "n2")] == [1, 1]

    def test_to_all_that_listen(self, make_app: MakeApp, url: str) -> None:
        """No list, so no script of ours: it counts before it is sent."""
        store = new_store(url)
        everybody = Queue("listeners", Exchange("news", type="fanout"))
        a = self.entry(make_app, url, options={"queue": everybody})
        client: Any = store.client
        with client.pubsub() as listener:
            listener.psubscribe("*news*")
            assert listener.get_message(timeout=PATIENCE_S)
            assert self.once(a).count == 1
            heard = listener.get_message(timeout=PATIENCE_S)
        assert heard is not None
        assert json.loads(heard["data"])["headers"]["task"] == "shop.one"

    def test_at_once_in_the_beats_own_process(self, make_app: MakeApp, url: str) -> None:
        ran: list[int] = []
        a = self.entry(make_app, url)
        a.app.conf.task_always_eager = True

        @a.app.task(name="shop.one", shared=False)
        def one() -> None:
            ran.append(1)

        assert self.once(a).count == 1
        assert ran == [1]

    def test_one_that_cannot_be_encoded_is_due_again_at_its_time(
        self, make_app: MakeApp, url: str
    ) -> None:
        """As in Celery: it would fail for ever, and as often as it can be tried."""
        a = self.entry(make_app, url, args=[object()])
        self.make_due(a, "one")
        assert (a.tick(), a.tick()) == (0, 5.0)
        assert (a.schedule["one"].total_run_count, self.sent(new_store(url))) == (1, 0)
