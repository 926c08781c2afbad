"""The history between processes: openers queue, nobody loses a row, a kill leaves whole batches."""

from __future__ import annotations

import fcntl
import multiprocessing
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxs_tasks.clock import FakeClock, wait_until
from nxs_tasks.history import open_history
from nxs_tasks.history.engine import writing
from tests.integration.history_records import NOW, ROOT, tick, transition

if TYPE_CHECKING:
    from tests.integration.history_fixtures import Place

pytest_plugins = ["tests.integration.history_fixtures"]


class WatchfulClock(FakeClock):
    """Notes, whenever `open_history` reads it, whether the lock beside the file is held."""

    def __init__(self, lock: Path) -> None:
        super().__init__()
        self.lock = lock
        self.seen: list[bool] = []

    def monotonic(self) -> float:
        self.seen.append(is_held(self.lock))
        return super().monotonic()


def is_held(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


class TestBesideOthers:
    def test_openers_of_a_file_queue(self, sqlite_place: Place) -> None:
        sqlite_place.open()
        lock = sqlite_place.state_path / "history.db.lock"
        clock = WatchfulClock(lock)
        with ThreadPoolExecutor(1) as pool:
            with lock.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                opening = pool.submit(open_history, "", sqlite_place.state_path, clock)
                assert not wait_until(lambda: bool(clock.seen), deadline_s=0.2)
            assert opening.result(timeout=30).ticks() == []
        assert clock.seen
        assert not is_held(lock)

    def test_a_file_is_migrated_under_its_lock(self, sqlite_place: Place) -> None:
        clock = WatchfulClock(sqlite_place.state_path / "history.db.lock")
        open_history("", sqlite_place.state_path, clock)
        assert clock.seen == [True, True]

    def test_a_writer_in_its_transaction_keeps_no_reader_out(self, place: Place) -> None:
        place.open().add([tick()])
        with writing(place.engine()) as connection:
            connection.exec_driver_sql("DELETE FROM nxs_ticks")
            assert place.open().ticks() == [tick()]

    def test_a_reader_in_its_transaction_keeps_no_writer_out(self, place: Place) -> None:
        history = place.open()
        with place.engine().connect() as connection:
            connection.exec_driver_sql("BEGIN" if not place.url else "SELECT 1")
            connection.exec_driver_sql("SELECT * FROM nxs_ticks").all()
            assert history.add([tick()]) == 1


def open_and_add(places: list[Place], me: int, barrier: Barrier) -> list[int]:
    """In each place: open at the same moment as the others, add, and count what was new."""
    new = []
    for place in places:
        barrier.wait(60)
        history = place.open()
        own = [[tick(f"own-{me}-{n}-{i}") for i in range(5)] for n in range(4)]
        # The same events for everybody, forwards here and backwards there.
        shared = [transition(f"shared-{i}") for i in range(20)][:: 1 if me % 2 else -1]
        new.append(sum(history.add([*batch, *shared]) for batch in own))
        history.prune(NOW, days=30)
    return new


def crowd_member(places: list[Place], me: int, barrier: Barrier, results: Any) -> None:
    try:
        results.put(open_and_add(places, me, barrier))
    except Exception:
        barrier.abort()
        results.put(traceback.format_exc())
        raise


class TestProcesses:
    def test_a_crowd_opens_and_writes_at_once_without_loss(self, places: list[Place]) -> None:
        crowd = 4
        context = multiprocessing.get_context("spawn")
        barrier, results = context.Barrier(crowd), context.Queue()
        members = [
            context.Process(target=crowd_member, args=(places, me, barrier, results), daemon=True)
            for me in range(crowd)
        ]
        for member in members:
            member.start()
        counts = [results.get(timeout=120) for _ in members]
        for member in members:
            member.join(30)
        assert [member.exitcode for member in members] == [0] * crowd, counts
        for n, place in enumerate(places):
            history = place.open()
            assert len(history.ticks()) == 4 * 5 * crowd
            assert len(history.transitions()) == 20
            assert sum(count[n] for count in counts) == 4 * 5 * crowd + 20
            assert place.differences() == []

    def test_a_killed_writer_leaves_whole_batches(self, place: Place) -> None:
        history = place.open()
        script = (
            "from pathlib import Path\n"
            "from tests.integration.history_fixtures import Place\n"
            "from tests.integration.history_records import tick\n"
            f"history = Place({place.url!r}, Path({str(place.state_path)!r})).open()\n"
            "for n in range(10**6):\n"
            "    history.add([tick(f'{n}-{i}') for i in range(10)])\n"
            "    print(n, flush=True)\n"
        )
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout
            for _ in range(20):
                assert writer.stdout.readline()
            writer.kill()
            confirmed = 20 + len(writer.stdout.readlines())
        kept = len(history.ticks(limit=10**6))
        assert kept in (10 * confirmed, 10 * confirmed + 10)
        assert history.add([tick("after")]) == 1
