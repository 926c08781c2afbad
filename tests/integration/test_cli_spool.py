"""`nxs spool` and `nxs unique`, against a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nxs_tasks import Fleet
from nxs_tasks.cli.main import EXIT_ERROR, run
from nxs_tasks.store.connect import place_of_url
from nxs_tasks.store.unique import UniqueKeys
from tests.conftest import MakeApp, Server, add_instance, new_store


class Terminal:
    """Runs commands on an app, and has what they print."""

    def __init__(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet = fleet
        self._capsys = capsys
        self.code = 0

    def __call__(self, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run(arguments, self.fleet.app)
        self.code = int(ended.value.code or 0)
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def submit(self, count: int, **options: Any) -> list[str]:
        send = self.fleet.app.send_task
        return [send("shop.pay", (n,), **options).id for n in range(count)]


@pytest.fixture
def nxs(
    make_app: MakeApp,
    own_server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Terminal:
    monkeypatch.setenv("COLUMNS", "120")
    fleet = make_app(own_server.url, submit_deadline=0.5)
    fleet.outbox.start = lambda: None  # type: ignore[method-assign]
    return Terminal(fleet, capsys)


def test_nothing_waits(nxs: Terminal) -> None:
    assert "nothing is in" in nxs("spool", "show")
    assert nxs.json("spool", "show")["rows"] == []
    assert "nothing waits" in nxs("spool", "drain")
    assert "0 dropped" in nxs("spool", "drop", "1")
    assert nxs.code == 0
    assert not nxs.fleet.outbox.spool.exists()


def test_what_waits_is_shown_and_sent(nxs: Terminal, own_server: Server) -> None:
    own_server.kill()
    ids = nxs.submit(3, priority=3)
    shown = nxs("spool", "show")
    assert all(id_ in shown for id_ in ids)
    assert "shop.pay" in shown
    assert "no Redis or Valkey server answers" in " ".join(shown.split())
    assert f"3 wait for {own_server.url}" in shown
    told = nxs.json("spool", "show")
    assert [row["task_id"] for row in told["rows"]] == ids
    assert told["counts"] == [{"broker": own_server.url, "refused": False, "count": 3}]
    failed = nxs("spool", "drain")
    assert (nxs.code, "3 still wait" in failed) == (EXIT_ERROR, True)
    own_server.start()
    assert f"3 wait for {own_server.url} (nxs spool show)" in " ".join(nxs("status").split())
    assert "3 sent, 0 refused" in nxs("spool", "drain")
    assert nxs.code == 0
    assert new_store(own_server.url).client.llen("celery\x06\x163") == 3


def test_arguments_are_not_shown(nxs: Terminal, own_server: Server) -> None:
    own_server.kill()
    nxs.fleet.app.send_task("shop.pay", ("hunter2",), argsrepr="hidden")
    assert "hunter2" not in nxs("spool", "show") + json.dumps(nxs.json("spool", "show"))


def test_what_is_refused_is_tried_again_or_dropped(nxs: Terminal, own_server: Server) -> None:
    own_server.kill()
    nxs.submit(2, queue="mails")
    own_server.start()
    client = new_store(own_server.url).client
    client.set("mails", "no list")
    assert "0 sent, 2 refused" in nxs("spool", "drain")
    assert "refused: " in nxs("spool", "show")
    assert f"2 refused by {own_server.url}" in nxs("spool", "show")
    number = nxs.json("spool", "show")["rows"][0]["row"]
    assert "1 dropped" in nxs("spool", "drop", str(number))
    client.delete("mails")
    assert "0 sent" in nxs("spool", "drain")
    assert "1 sent, 0 refused" in nxs("spool", "drain", "--refused")
    assert client.llen("mails") == 1


def test_another_broker_has_its_own(
    nxs: Terminal,
    own_server: Server,
    url: str,
    make_app: MakeApp,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own_server.kill()
    nxs.submit(1)
    other = Terminal(make_app(url), capsys)
    assert "this app has another broker" in other("spool", "show")
    assert "0 sent" in other("spool", "drain")


def test_who_asks_may_change_and_an_address_be_moved(nxs: Terminal, own_server: Server) -> None:
    place = own_server.url.replace("redis://", "redis://ann:secret@")
    assert place_of_url(place) == own_server.url
    own_server.kill()
    nxs.submit(2)
    own_server.start()
    with nxs.fleet.outbox.spool.writing() as connection:
        connection.execute("UPDATE kept SET broker = 'redis://old:6379/0'")
    assert "2 wait for redis://old:6379/0, and this app has" in nxs("spool", "drain")
    assert f"2 wait for {own_server.url} now" in nxs("spool", "move", "redis://old:6379/0")
    assert "2 sent, 0 refused" in nxs("spool", "drain")


def test_a_spool_that_is_damaged_is_told(nxs: Terminal) -> None:
    path = nxs.fleet.outbox.spool.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no database " * 1000)
    printed = nxs("spool", "show")
    assert (nxs.code, str(path) in printed, "Traceback" in printed) == (EXIT_ERROR, True, False)


def test_unique_keys(nxs: Terminal, own_server: Server) -> None:
    assert "no unique key is taken" in nxs("unique", "list")
    [id_] = nxs.submit(1, headers={"nxs_unique": "nightly"})
    shown = nxs("unique", "list")
    assert "nightly" in shown
    assert id_ in shown
    assert nxs.json("unique", "list") == [{"unique_key": "nightly", "task_id": id_}]
    assert "no task has the unique key 'daily'" in nxs("unique", "release", "daily")
    assert nxs.code == EXIT_ERROR
    store = new_store(own_server.url)
    add_instance(store, "w1@t")
    message: Any = store.client.rpop("celery")
    held = f'[{message}, "", "celery"]'
    store.client.hset(store.keys.inflight("w1@t", 1), "w1@t|1|1", held)
    assert f"task {id_} is held by w1@t" in nxs("unique", "release", "nightly")
    assert nxs.code == EXIT_ERROR
    assert f"task {id_} had it" in nxs("unique", "release", "nightly", "--force")
    assert UniqueKeys(new_store(own_server.url)).owner("nightly") == ""
