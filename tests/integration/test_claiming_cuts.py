"""The channel of a fleet when something breaks: connections, the server, scripts, permissions."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.clock import FakeClock, wait_until
from nxs_tasks.store import connect
from nxs_tasks.transport import consuming
from nxs_tasks.worker.strays import APART_S, Strays
from tests.conftest import Server, add_instance
from tests.integration.cable import Cable
from tests.integration.claiming import OWN, PATIENCE_S, MakeTaker, Taker, a_message

pytest_plugins = ["tests.integration.claiming_fixtures"]


def kill(taker: Taker) -> None:
    taker.store.client.client_kill_filter(_id=str(taker.connection_id()))


def go_on(taker: Taker, count: int) -> list[str]:
    """Drain until so many messages have come, and connect anew as often as Celery would."""

    def enough() -> bool:
        try:
            taker.drain(0.05)
        except taker.connection.connection_errors:
            taker.close()
            assert wait_until(lambda: connects(taker), PATIENCE_S), "no way back to the server"
        return len(taker.got) >= count

    assert wait_until(enough, PATIENCE_S, poll_s=0.0), f"got only {taker.ids()}"
    return taker.ids()


def connects(taker: Taker) -> bool:
    try:
        taker.connect()
    except taker.connection.connection_errors:
        return False
    return True


def strays_of(taker: Taker, clock: FakeClock) -> Strays:
    return Strays(taker.tenure, lambda: {m.delivery_tag for m in taker.got}, clock)


# a connection is lost


def test_a_killed_idle_connection_is_replaced(taker: Taker, only_notices: None) -> None:
    taker.until_armed()
    before = taker.connection_id()
    kill(taker)
    taker.until(lambda: taker.connection_id() not in (None, before), "another connection")
    taker.until_armed()
    taker.store.client.lpush("celery", a_message(1))
    assert taker.until_got(1) == ["1"], "notices are on again"


def test_a_connection_that_is_killed_after_the_answer_has_delivered_it(taker: Taker) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.ask()
    assert wait_until(lambda: taker.waiting() == 0, PATIENCE_S)
    kill(taker)
    assert go_on(taker, 1) == ["1"]
    taker.got[0].ack()
    assert taker.held() == {}


def test_a_killed_busy_connection_is_replaced_when_it_is_needed(taker: Taker) -> None:
    taker.channel.basic_qos(0, 1, False)
    taker.store.client.lpush("celery", a_message(1), a_message(2))
    taker.until_got(1)
    kill(taker)
    assert taker.held_ids() == {"1"}
    taker.drain(0.1)
    taker.got[0].ack()
    assert go_on(taker, 2) == ["1", "2"]
    assert taker.held_ids() == {"2"}


def test_a_notice_to_a_busy_worker_does_not_cost_it_its_connection(taker: Taker) -> None:
    """kombu takes whatever comes without a question for the end of the connection."""
    taker.channel.basic_qos(0, 1, False)
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    before = taker.connection_id()
    for number in range(2, 7):
        # A list that it has looked into without taking from it: of that it is told.
        taker.store.client.lpush(OWN, a_message(number))
        taker.drain(0.02)
    assert taker.ids() == ["1"]
    taker.got[0].ack()
    assert taker.until_got(2) == ["1", "2"]
    assert taker.connection_id() == before


def test_a_message_whose_answer_is_lost_is_found_and_given_back(
    url: str, cable: Cable, make_taker: MakeTaker
) -> None:
    taker = make_taker(url, consume_at=cable.url)
    taker.until_armed()
    taker.store.client.lpush("celery", a_message(1))
    cable.lose_answers()
    taker.ask()
    assert wait_until(lambda: taker.held_ids() == {"1"}, PATIENCE_S)
    cable.cut()
    taker.store.client.lpush("celery", a_message(2))
    assert go_on(taker, 1) == ["2"]
    assert taker.held_ids() == {"1", "2"}
    clock = FakeClock()
    strays = strays_of(taker, clock)
    assert strays.look() == 0, "it may be between two hands"
    assert strays.look() == 0, "no time has passed"
    clock.advance(APART_S)
    assert strays.look() == 1
    assert taker.held_ids() == {"2"}
    assert go_on(taker, 2) == ["2", "1"]
    clock.advance(APART_S)
    assert strays.look() == 0


def test_what_was_asked_for_last_is_no_stray(url: str, cable: Cable, make_taker: MakeTaker) -> None:
    """Its answer may be on the way, for as long as a worker is busy with other things."""
    taker = make_taker(url, consume_at=cable.url)
    taker.until_armed()
    taker.store.client.lpush("celery", a_message(1))
    taker.ask()
    assert wait_until(lambda: taker.held_ids() == {"1"}, PATIENCE_S)
    clock = FakeClock()
    strays = strays_of(taker, clock)
    for _ in range(3):
        assert strays.look() == 0
        clock.advance(APART_S)
    assert taker.until_got(1) == ["1"]
    taker.got[0].ack()
    assert taker.held() == {}


# the server


@pytest.mark.parametrize("state", ["idle", "asked", "busy"])
def test_a_killed_server_loses_nothing(
    own_server: Server, make_taker: MakeTaker, state: str
) -> None:
    taker = make_taker(own_server.url)
    if state == "busy":
        taker.channel.basic_qos(0, 1, False)
        taker.store.client.lpush("celery", a_message(0))
        taker.until_got(1)
    else:
        taker.until_armed()
    if state == "asked":
        own_server.freeze()
        taker.ask()
    own_server.kill()
    own_server.start()
    taker.store.client.lpush("celery", a_message(1), a_message(2))
    for message in taker.got:
        message.ack()
    taken = go_on(taker, len(taker.got) + 2)
    assert taken[-2:] == ["1", "2"]
    assert taker.held_ids() == {"1", "2"}


def test_an_ending_that_the_server_did_not_hear_is_told_later(
    own_server: Server, make_taker: MakeTaker
) -> None:
    taker = make_taker(own_server.url)
    taker.store.client.lpush("celery", a_message(1), a_message(2))
    taker.until_got(2)
    own_server.kill()
    taker.got[0].ack()
    taker.got[1].requeue()
    assert taker.tenure.settling() == {m.delivery_tag for m in taker.got}
    own_server.start()
    assert taker.held_ids() == {"1", "2"}
    taker.tenure.settle_all()
    assert taker.tenure.settling() == set()
    assert taker.held() == {}
    assert go_on(taker, 3)[2] == "2"


def test_a_server_that_forgets_its_scripts_is_sent_them_again(
    taker: Taker, only_notices: None
) -> None:
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    taker.store.client.script_flush()
    taker.store.client.lpush("celery", a_message(2))
    assert taker.until_got(2) == ["1", "2"]
    taker.until_armed()
    taker.store.client.script_flush()
    taker.store.client.lpush("celery", a_message(3))
    assert taker.until_got(3) == ["1", "2", "3"]


def test_a_refusing_server_is_asked_again(
    taker: Taker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one without memory, or with a key of a wrong type; the worker stays alive."""
    monkeypatch.setattr(consuming, "ASK_AGAIN_S", 0.05)
    taker.store.client.set("celery", "this is no list")
    taker.until(lambda: "refuses to hand out work" in caplog.text, "a word in the log")
    before = taker.connection_id()
    taker.store.client.delete("celery")
    taker.store.client.lpush("celery", a_message(1))
    assert taker.until_got(1) == ["1"]
    assert taker.connection_id() == before


def test_a_server_without_memory_loses_nothing(
    own_server: Server, make_taker: MakeTaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses a script half-way and undoes nothing."""
    monkeypatch.setattr(consuming, "ASK_AGAIN_S", 0.05)
    taker = make_taker(own_server.url)
    taker.until_armed()
    taker.store.client.lpush("celery", a_message(1))
    taker.store.client.config_set("maxmemory", "1")
    taker.ask()
    for _ in range(4):
        taker.drain(0.05)
        assert taker.waiting() + len(taker.held()) == 1
    taker.store.client.config_set("maxmemory", "0")
    assert taker.until_got(1) == ["1"]
    taker.until_armed()
    assert (taker.waiting(), taker.held_ids(), taker.ids()) == (0, {"1"}, ["1"])


def test_where_notices_are_not_allowed_it_asks_ten_times_a_second(
    url: str, make_taker: MakeTaker, only_notices: None
) -> None:
    client = connect(url)
    may: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "commands": ["+@all"]}
    may["commands"].append("-client|tracking")
    client.acl_setuser("plain", enabled=True, passwords=["+pw"], **may)
    try:
        taker = make_taker(url, consume_at=url.replace("://", "://plain:pw@"))
        client.config_resetstat()
        taker.until(lambda: taker.asks() >= 5, "it to ask again and again", turn_s=0.2)
        taker.store.client.lpush("celery", a_message(1))
        assert taker.until_got(1) == ["1"]
    finally:
        client.acl_deluser("plain")


# the place in the fleet


def test_who_has_lost_its_place_is_given_nothing(
    taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "DISPLACED_S", 0.01)
    taker.until_armed()
    epoch = add_instance(taker.store, "w1@t")  # another process with this name
    taker.store.client.lpush("celery", a_message(1))
    taker.until(lambda: taker.displaced >= 2, "it to notice")
    assert (taker.got, taker.waiting()) == ([], 1)
    taker.tenure.epoch = epoch
    assert taker.until_got(1) == ["1"]
    [token] = taker.held()
    assert token.startswith(f"w1@t|{epoch}|")
    name = taker.store.keys.client_name("w1@t", epoch)
    assert (taker.store.connections() or {})[name] == 1, "by its name the fleet sees that it lives"


def test_a_record_that_is_gone_gives_nothing(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "DISPLACED_S", 0.01)
    taker.until_armed()
    taker.store.client.flushdb()
    taker.store.client.lpush("celery", a_message(1))
    taker.until(lambda: taker.displaced >= 1, "it to notice")
    assert (taker.got, taker.waiting()) == ([], 1)


def test_no_clock_takes_back_what_is_held(url: str, make_taker: MakeTaker) -> None:
    """kombu's sweep does that, after `visibility_timeout`."""
    taker = make_taker(url, options={"visibility_timeout": 0, "unacked_restore_throttle": 1})
    taker.store.client.lpush("celery", a_message(1))
    taker.until_got(1)
    for _ in range(5):
        taker.drain(0.02)
    assert (taker.ids(), taker.waiting(), taker.held_ids()) == (["1"], 0, {"1"})


# closing


@pytest.mark.parametrize("state", ["armed", "asked", "busy", "fresh"])
def test_closing_is_quick_and_quiet(taker: Taker, only_notices: None, state: str) -> None:
    taker.store.client.lpush("celery", a_message(1))
    if state != "fresh":
        taker.until_got(1)
        taker.until_armed()
    if state == "asked":
        taker.ask()
    if state == "busy":
        taker.channel.basic_qos(0, 1, False)
        taker.drain(0.0)
    taker.consumer.cancel()
    taker.channel.close()
    taker.connection.close()
    kept = {"1"} if state != "fresh" else set()
    assert taker.held_ids() == kept, "what is delivered stays with its holder"


def test_closing_does_not_wait_for_a_server_that_hangs(
    own_server: Server, make_taker: MakeTaker, only_notices: None
) -> None:
    taker = make_taker(own_server.url)
    taker.until_armed()
    own_server.freeze()
    try:
        taker.channel.close()
    finally:
        own_server.thaw()


def test_what_is_answered_while_it_closes_goes_back(taker: Taker) -> None:
    taker.until_armed()
    taker.store.client.lpush("celery", a_message(1))
    taker.ask()
    taker.consumer.cancel()
    taker.channel.close()
    assert (taker.got, taker.held(), taker.waiting()) == ([], {}, 1)
