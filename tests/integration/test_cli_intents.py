"""What `nxs` says of cancellations and pauses, with nobody up."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.live import Live

pytest_plugins = ["tests.integration.live_fixtures"]


def test_what_nxs_says_of_a_cancellation(live: Live, shop: Any) -> None:
    elsewhere = shop.add.apply_async((1, 1), queue="video")
    told = json.loads(live.nxs("story", elsewhere.id, "--json").stdout)
    assert told["waiting"] == {"queue": "video", "priority": 0, "ahead": 0}
    written = shop.fleet.submit(shop.add, (1, 1), queue="audio")
    told = json.loads(live.nxs("story", written.id, "--json").stdout)
    assert told["waiting"] == {"queue": "audio", "priority": 0, "ahead": 0}
    adds, nap = [shop.add.delay(n, n) for n in range(3)], shop.nap.delay(1.0)
    live.store.client.delete("video", "audio")
    dry = live.nxs("cancel", "--task", "shop.add", "--dry-run")
    assert "3 task(s) found, would be cancelled:" in dry.stdout
    assert "3 to take out of queue celery" in dry.stdout
    done = live.nxs("cancel", "--task", "shop.add", nap.id, "never-seen")
    assert done.returncode == 0, done.stderr
    assert "4 task(s) found, cancelled:" in done.stdout
    assert "4 taken out of queue celery" in done.stdout
    assert "not found: never-seen: if it comes, it will not run" in done.stdout
    assert live.store.client.llen("celery") == 0
    assert "5 cancelled" in live.nxs("status").stdout
    story = live.nxs("story", nap.id)
    assert story.returncode == 0
    assert "task " + nap.id + " (shop.nap)" in story.stdout
    assert ": will not run" in story.stdout
    undone = live.nxs("cancel", "--undo", nap.id, adds[0].id)
    assert "2 task(s) wait again, at the front" in undone.stdout
    assert live.store.client.llen("celery") == 2
    assert ": will not run" not in live.nxs("story", nap.id).stdout
    told = json.loads(live.nxs("cancel", adds[0].id, "--json").stdout)
    assert told["withdrawn"] == {"queue celery": 1}


def test_what_nxs_says_when_there_is_nothing_to_cancel(live: Live) -> None:
    nothing = live.nxs("cancel", "--task", "shop.add")
    assert (nothing.returncode, nothing.stdout) == (1, "0 task(s) found\n")
    unsaid = live.nxs("cancel")
    assert unsaid.returncode == 2
    assert "say what to cancel" in unsaid.stderr
    both = live.nxs("cancel", "--undo", "--terminate", "t1")
    assert both.returncode == 2
    assert "--undo goes with neither" in both.stderr
    undone = live.nxs("cancel", "--undo", "t1")
    assert (undone.returncode, undone.stdout) == (1, "t1 was not cancelled\n")


def test_what_nxs_says_of_pauses(live: Live) -> None:
    assert live.nxs("pause").stdout == "nothing is paused\n"
    done = live.nxs("pause", "--queue", "celery", "--task", "shop.nep", "--reason", "relay down")
    assert done.returncode == 0, done.stderr
    assert "queue celery is paused\n" in done.stdout
    assert "did you mean 'shop.nap'?" in done.stdout
    shown = live.nxs("pause").stdout.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("queue celery is paused since 0s by ") or "s by " in shown[0]
    assert shown[0].endswith(": relay down")
    status = live.nxs("status").stdout
    assert "! queue celery is paused since" in status
    told = json.loads(live.nxs("status", "--json").stdout)["intents"]["pauses"]
    assert [(p["kind"], p["name"], p["reason"]) for p in told] == [
        ("queue", "celery", "relay down"),
        ("task", "shop.nep", "relay down"),
    ]
    refused = live.nxs("pause", "--queue", "nxs.control")
    assert refused.returncode == 2
    assert "cannot be paused" in refused.stderr
    resumed = live.nxs("resume", "--queue", "celery", "--task", "other")
    assert resumed.returncode == 0
    assert "queue celery is resumed" in resumed.stdout
    assert "task other was not paused" in resumed.stdout
    assert live.nxs("resume", "--queue", "celery").returncode == 1
    assert "say what to resume" in live.nxs("resume").stderr
