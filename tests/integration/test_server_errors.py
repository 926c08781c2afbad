"""What a person is told when the server cannot serve, over real sockets: which one, and what to do.

No text and no traceback ever shows a password.
"""

from __future__ import annotations

import re
import socketserver
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nxs_tasks.clock import SYSTEM
from nxs_tasks.errors import BrokerError, BrokerRefused, BrokerTooOld, BrokerUnreachable
from nxs_tasks.store import FleetStore, Keys, Wire, connect, safe_url
from tests.conftest import MakeApp, Server, add_instance

PASSWORD = "correct-horse-battery"
WRONG = "wrong-horse-battery"
TIMEOUT_S = 0.15

USES: dict[str, Callable[[FleetStore], object]] = {
    "check_server": lambda store: store.check_server(),
    "ping": lambda store: store.ping(),
    "epoch": lambda store: store.epoch("w1"),
    "snapshot": lambda store: store.snapshot(),
    "full snapshot": lambda store: store.snapshot(full=True),
    "join": lambda store: add_instance(store, "w1"),
    "connections": lambda store: store.connections(),
}
#: `connections` is unknown, and no error, where the server refuses.
REFUSABLE = [name for name in USES if name != "connections"]


def store_at(url: str, name: str | None = None, timeout_s: float = TIMEOUT_S) -> FleetStore:
    client = connect(url, timeout_s=timeout_s, client_name=name)
    return FleetStore(client, Keys("default"), Wire(), "celery", url)


def login(url: str, user: str, password: str) -> str:
    return url.replace("redis://", f"redis://{user}:{password}@")


def told(error: pytest.ExceptionInfo[BrokerError]) -> str:
    """The message; what a log would show of it has no password."""
    shown = "".join(traceback.format_exception(error.value))
    assert PASSWORD not in shown
    assert WRONG not in shown
    return str(error.value)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a password."""
    running = Server(tmp_path_factory.mktemp("guarded"))
    with connect(running.url) as client:
        client.config_set("requirepass", PASSWORD)
    yield running
    running.kill()


def add_user(server: Server, name: str, *rights: str) -> str:
    """A user with a password; returns the address with both."""
    with connect(server.url) as client:
        client.execute_command("ACL", "SETUSER", name, "on", f">{PASSWORD}", "~*", "&*", *rights)
    return login(server.url, name, PASSWORD)


class TestUnreachable:
    def test_nothing_listens(self, own_server: Server) -> None:
        own_server.kill()
        url = login(own_server.url, "", PASSWORD)
        for use in USES.values():
            with pytest.raises(BrokerUnreachable) as error:
                use(store_at(url))
            assert safe_url(url) in told(error)
            assert own_server.url.partition("//")[2] in told(error)
            assert "is it running, and is broker_url right?" in told(error)

    @pytest.mark.parametrize("name", [None, "nxs:default:w1:1"])
    def test_a_frozen_server_is_no_server(self, own_server: Server, name: str | None) -> None:
        own_server.freeze()
        try:
            for use in USES.values():
                with pytest.raises(BrokerUnreachable) as error:
                    use(store_at(own_server.url, name))
                assert own_server.url in told(error)
        finally:
            own_server.thaw()

    def test_a_frozen_server_is_waited_for_once_and_as_long_as_is_set(
        self, own_server: Server
    ) -> None:
        store = store_at(own_server.url, timeout_s=1.0)
        store.ping()
        own_server.freeze()
        before = SYSTEM.monotonic()
        try:
            with pytest.raises(BrokerUnreachable):
                store.ping()
        finally:
            own_server.thaw()
        assert 0.9 < SYSTEM.monotonic() - before < 1.9
        store.ping()

    def test_the_setting_is_what_limits_the_wait(
        self, own_server: Server, make_app: MakeApp
    ) -> None:
        fleet = make_app(own_server.url, broker_timeout=0.1)
        own_server.freeze()
        before = SYSTEM.monotonic()
        try:
            with pytest.raises(BrokerUnreachable):
                fleet.snapshot()
        finally:
            own_server.thaw()
        assert SYSTEM.monotonic() - before < 1.0

    def test_a_server_that_was_started_again_is_used_at_once(self, own_server: Server) -> None:
        store = store_at(own_server.url)
        add_instance(store, "w1")
        own_server.kill()
        own_server.start()
        assert [i.id for i in store.snapshot().instances] == ["w1"]


class TestRefused:
    @pytest.mark.parametrize("use", REFUSABLE)
    def test_a_password_is_missing(self, guarded: Server, use: str) -> None:
        with pytest.raises(BrokerRefused) as error:
            USES[use](store_at(guarded.url))
        assert guarded.url in told(error)
        assert re.search(r"(password in|put it into) broker_url", told(error))

    @pytest.mark.parametrize("use", REFUSABLE)
    def test_a_password_is_wrong(self, guarded: Server, use: str) -> None:
        with pytest.raises(BrokerRefused) as error:
            USES[use](store_at(login(guarded.url, "", WRONG)))
        assert guarded.url.partition("//")[2] in told(error)
        assert "check user and password in broker_url" in told(error)

    def test_a_password_of_a_connection_that_is_made_later(self, own_server: Server) -> None:
        store = store_at(own_server.url)
        store.ping()
        with connect(own_server.url) as client:
            client.config_set("requirepass", PASSWORD)
            client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(BrokerRefused) as error:
            store.snapshot()
        assert own_server.url in told(error)

    def test_the_right_password_lets_in(self, guarded: Server) -> None:
        store = store_at(login(guarded.url, "", PASSWORD))
        store.check_server()
        assert store.snapshot().instances == ()

    def test_a_user_without_client_list_works_and_knows_no_connections(
        self, own_server: Server
    ) -> None:
        url = add_user(own_server, "shy", "+@all", "-client|list")
        store = store_at(url, "nxs:default:w1:1")
        add_instance(store, "w1")
        assert store.connections() is None
        found = store.snapshot(full=True)
        assert found.instances[0].connections is None
        assert found.server_started_at is not None

    @pytest.mark.parametrize(
        ("rights", "use"),
        [
            pytest.param(["+@all", "-info"], "check_server", id="INFO"),
            pytest.param(["+@all", "-evalsha", "-eval"], "snapshot", id="EVALSHA"),
            pytest.param(["+@all", "resetkeys", "~shop:*"], "epoch", id="key"),
            pytest.param(["+@all", "resetkeys", "~shop:*"], "snapshot", id="key in a script"),
        ],
    )
    def test_a_permission_is_missing(self, own_server: Server, rights: list[str], use: str) -> None:
        url = add_user(own_server, "poor", *rights)
        with pytest.raises(BrokerRefused) as error:
            USES[use](store_at(url))
        assert safe_url(url) in told(error)
        assert "poor:***@" in told(error)
        assert "ermission" in told(error)


class OldServer(socketserver.StreamRequestHandler):
    """Answers as Redis 5.0.14 does, as far as a client gets with it.

    The only stand-in of this suite: so old a server is in no wheel, and the embedded one cannot
    claim another version than its own.
    """

    def handle(self) -> None:
        while head := self.rfile.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2].upper())
            self.wfile.write(self.answer(words))

    def answer(self, words: list[bytes]) -> bytes:
        if words[0] == b"INFO":
            text = b"# Server\r\nredis_version:5.0.14\r\nredis_mode:standalone\r\n"
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if words[0] in (b"PING", b"SELECT") or words[:2] == [b"CLIENT", b"SETNAME"]:
            return b"+OK\r\n"
        return b"-ERR unknown command `%s`, with args beginning with: \r\n" % words[0]


class Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def old_url() -> Iterator[str]:
    with Listener(("127.0.0.1", 0), OldServer) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"redis://127.0.0.1:{listener.server_address[1]}/0"
        listener.shutdown()
        thread.join()


class TestTooOld:
    @pytest.mark.parametrize("name", [None, "nxs:default:w1:1"])
    @pytest.mark.parametrize(
        "query",
        [
            "",
            "?protocol=2",
        ],
    )
    def test_the_version_and_the_one_that_is_needed_are_told(
        self, old_url: str, query: str, name: str | None
    ) -> None:
        with pytest.raises(BrokerTooOld) as error:
            store_at(old_url + query, name).check_server()
        assert old_url in told(error)
        assert "5.0.14" in told(error)
        assert "6.2 or newer" in told(error)

    def test_the_embedded_server_is_new_enough(self, url: str) -> None:
        assert store_at(url).check_server()["uptime_in_seconds"] >= 0


class TestSafeUrl:
    @pytest.mark.parametrize(
        ("url", "safe"),
        [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:secret@host/0", "redis://:***@host/0"),
            ("rediss://user:secret@host:6380/1", "rediss://user:***@host:6380/1"),
            ("redis+socket://:secret@/run/redis.sock", "redis+socket://:***@/run/redis.sock"),
            (
                "sentinel://:secret@a:26379;sentinel://u:secret@b:26379",
                "sentinel://:***@a:26379;sentinel://u:***@b:26379",
            ),
            ("redis://user@host/0", "redis://user@host/0"),
        ],
    )
    def test_the_password_alone_is_hidden(self, url: str, safe: str) -> None:
        assert safe_url(url) == safe

    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("redis://user:top:secret@host/0", id="colon"),
            pytest.param("redis://:top@secret@host/0", id="at sign"),
            pytest.param("redis://host/0?password=topsecret", id="in the query"),
        ],
    )
    def test_every_password_that_lets_in_is_hidden(self, url: str) -> None:
        options: dict[str, Any] = connect(url).connection_pool.connection_kwargs
        assert options["password"].replace(":", "").replace("@", "") == "topsecret"
        assert not re.search("top|secret", safe_url(url))
