"""Whether two clients write to one server, as their addresses tell."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from nxs_tasks.store import connect
from nxs_tasks.store.guard import Place, is_taken, place_of

SENTINELS = "sentinel://a:1/2;sentinel://b:2/2"
MASTER = {"master_name": "m"}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h:1/2", Place(("tcp", "h", "1"), 2)),
        ("redis://user:secret@h:1", Place(("tcp", "h", "1"), 0)),
        ("rediss://h:1/2", Place(("tcp", "h", "1"), 2)),
        ("redis://localhost/0", Place(("tcp", "127.0.0.1", "6379"), 0)),
        ("redis://127.0.0.1:6379", Place(("tcp", "127.0.0.1", "6379"), 0)),
        ("redis+socket:///run/s.sock?virtual_host=3", Place(("socket", "/run/s.sock"), 3)),
        (SENTINELS, Place(("sentinel", "m", "a:1", "b:2"), 2)),
        ("sentinel://b:2/2;sentinel://a:1/2", Place(("sentinel", "m", "a:1", "b:2"), 2)),
    ],
)
def test_where_a_client_writes_to(url: str, place: Place) -> None:
    assert place_of(connect(url, MASTER)) == place


def test_another_service_of_the_same_sentinels_is_another_server() -> None:
    ours, theirs = connect(SENTINELS, MASTER), connect(SENTINELS, {"master_name": "n"})
    assert place_of(ours).server != place_of(theirs).server


def test_a_client_that_celery_has_made_is_read_alike() -> None:
    pool: Any = redis.ConnectionPool(host="localhost", port=6379, db=0)
    ours = connect("redis://127.0.0.1:6379/0")
    assert place_of(redis.Redis(connection_pool=pool)) == place_of(ours)


@pytest.mark.parametrize(
    ("answer", "taken"),
    [([b"nxs: taken"], True), (["nxs: taken"], True), ([1, None, b"2", 0], False), (1, False)],
)
def test_what_a_guarded_script_answers(answer: Any, taken: bool) -> None:
    assert is_taken(answer) is taken
