"""A consumer that is killed has a message in its hands: it must be written somewhere at any moment.

kombu pops a message and writes down afterwards who has it. What is killed in between is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import cast

from nxs_tasks.control.effects import apply_all
from nxs_tasks.policy.fleet.rescue import rescue
from nxs_tasks.settings import Settings
from nxs_tasks.store.message import unwrap
from tests.conftest import add_instance, new_store
from tests.integration.claiming import a_message
from tests.integration.live import ROOT
from tests.integration.mortal_takers import DONE

#: Processes that are killed. With 200 and more also the rare moments are met.
KILLS = int(os.environ.get("POP_WINDOW_KILLS", "60"))
#: Messages for each of them: none lives long enough to do so many.
EACH = 60


def kill_consumers(url: str, kind: str) -> set[str]:
    """Kill consumers under load; the ids of all messages that there were."""
    client = new_store(url).client
    sent = {str(n) for n in range(KILLS * EACH)}
    client.lpush("celery", *(a_message(n) for n in sent))
    command = [sys.executable, "-m", "tests.integration.mortal_takers", url, kind, str(KILLS)]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    assert told.stdout.strip() == str(KILLS), told.stderr
    assert client.llen("celery") > 0, "there was work until the end"
    return sent


def waiting(url: str) -> list[str]:
    raws = new_store(url).client.lrange("celery", 0, -1)
    return [json.loads(raw)["headers"]["id"] for raw in raws]


def test_a_killed_consumer_of_a_fleet_loses_nothing(url: str) -> None:
    sent = kill_consumers(url, "fleet")
    store = new_store(url)
    held = []
    for key in store.client.scan_iter(match=store.keys.inflight_base() + "*"):
        for entry in cast("list[str]", store.client.hvals(key)):
            raw, queue = unwrap(entry)
            assert queue == "celery"
            held.append(json.loads(raw)["headers"]["id"])
    done = store.client.lrange(DONE, 0, -1)
    assert sent - {*waiting(url), *held, *done} == set(), "lost"
    assert not set(waiting(url)) & {*held, *done}
    twice = [id_ for id_, times in Counter([*waiting(url), *held]).items() if times > 1]
    assert twice == []
    assert held, "some were killed with a message in their hands"

    # And they come back: the name has a new process, so all before it are gone.
    add_instance(store, "w1@t")
    apply_all(rescue(store.snapshot(full=True)), store, Settings())
    assert sorted(waiting(url)) == sorted(sent - set(done) | (set(done) & set(held)))


def test_a_killed_stock_consumer_loses_some(url: str) -> None:
    """Or the test above could not fail."""
    sent = kill_consumers(url, "stock")
    client = new_store(url).client
    held = {json.loads(e)[0]["headers"]["id"] for e in client.hvals("unacked")}
    lost = sent - {*waiting(url), *held, *client.lrange(DONE, 0, -1)}
    assert lost, f"{KILLS} kills cost nothing"
