"""Migrations that are killed at a random moment, one after the other: `URL KILLS`.

Prints how many were killed after some of their tasks had moved, and how many in all.
"""

from __future__ import annotations

import os
import random
import signal
import sys

from nxs_tasks.clock import wait_until
from nxs_tasks.errors import Stale
from nxs_tasks.settings import Settings
from nxs_tasks.store import migration
from tests.conftest import new_store, set_back
from tests.integration.messages import OWN

#: Tasks for each migration, in parts of so many.
TASKS, PART = 100, 5
#: The longest life of one after its first part, s.
LIFE_S = 0.02


def main(url: str, kills: str) -> None:
    from tests.integration.test_migration import TO, a_move

    store = new_store(url)
    migration.PART = PART
    begun = 0
    for _ in range(int(kills)):
        before = store.client.llen(TO)
        child = os.fork()
        if not child:
            try:
                migration.migrate(new_store(url), a_move(TASKS), Settings())
            except Stale:
                os._exit(1)
            os._exit(0)

        def is_moving(there: int = before) -> bool:
            return store.client.llen(TO) > there

        wait_until(is_moving, 10.0, poll_s=0.0005)
        wait_until(lambda: False, random.uniform(0.0, LIFE_S), poll_s=0.0005)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        moved = store.client.llen(TO) - before
        if os.WIFSIGNALED(status) and 0 < moved < TASKS:
            begun += 1
        for name in ("w1", "w2"):
            set_back(store, name, "migrated_at", 3600.0)
        if store.client.llen(OWN) == 0:
            break
    print(begun, kills)


if __name__ == "__main__":
    main(*sys.argv[1:])
