"""Tasks that submit others, are retried or are followed by others while the broker is frozen."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from celery import Celery, chain

from nxs_tasks.submission.batches import counts
from nxs_tasks.submission.spool import Spool
from tests.integration.live import PATIENCE_S, Live
from tests.integration.submitting import make

pytest_plugins = ["tests.integration.live_fixtures"]

APP = "tests.integration.relay"
NAMES = ("submit", "again", "first")


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


def test_what_a_worker_sends_meanwhile_is_sent_once(live: Live, tmp_path: Path) -> None:
    ledger, flag = tmp_path / "ledger", tmp_path / "flag"
    spool = Spool(Path(live.env["NXS_STATE_DIR"]) / "spool-default.db", 64)
    live.worker("w1@t", 4, app=APP)
    app = Celery("relay", broker=live.server.url, set_as_current=False)
    arguments = (str(ledger), str(flag))
    submit, again, first = (app.signature(f"relay.{name}", args=arguments) for name in NAMES)
    last = app.signature("relay.last", args=(str(ledger), "followed"), immutable=True)
    for signature in (submit, again, chain(first, last, app=app)):
        signature.apply_async()
    live.until(lambda: len(lines(ledger)) == len(NAMES), "all tasks are running")
    live.server.freeze()
    flag.touch()
    try:
        live.until(lambda: spool.exists() and sum(counts(spool).values()) >= 1, "something is kept")
        live.until(lambda: any(line.startswith("took") for line in lines(ledger)), "submitted")
    finally:
        live.server.thaw()
    expected = {"ran submitted": 1, "ran again": 1, "ran followed": 1}
    live.until(lambda: set(expected) <= set(lines(ledger)), "everything has run")
    live.until(lambda: not counts(spool), "the spool is empty")
    live.until(lambda: live.store.snapshot().shared_depth == 0, "the queue is empty")
    assert {k: n for k, n in Counter(lines(ledger)).items() if k.startswith("ran")} == expected
    [took] = [float(line.split()[1]) for line in lines(ledger) if line.startswith("took")]
    assert took < PATIENCE_S / 2
    spool.close()


def test_a_worker_sends_what_a_process_has_left(live: Live) -> None:
    live.worker("w1@t", 1)
    live.until(lambda: live.snapshot().get("w1@t") is not None, "the worker is there")
    live.server.freeze()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fleet = make(live.server.url, live.env["NXS_STATE_DIR"])
            result = fleet.app.send_task("shop.add", (1, 2), ignore_result=True)
            status = 0 if result.id else 1
        finally:
            os._exit(status)  # without a word to the spool's thread
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        spool = Spool(Path(live.env["NXS_STATE_DIR"]) / "spool-default.db", 64)
        assert sum(counts(spool).values()) == 1
    finally:
        live.server.thaw()
    live.until(lambda: not counts(spool), "the worker has sent it")
    live.until(lambda: live.instance("w1@t").succeeded == 1, "and run it")
    spool.close()
