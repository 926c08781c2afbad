"""The spool's file: what it keeps, who may read it, what it says when it cannot."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from nxs_tasks.deadline import Deadline
from nxs_tasks.errors import SpoolError
from nxs_tasks.submission import spool as spool_file
from nxs_tasks.submission.batches import counts, rows
from nxs_tasks.submission.spool import Kept, Spool

BROKER = "redis://broker/0"
#: Longest wait for a thread or a process of ours. A deadline, not an expectation.
PATIENCE_S = 60.0


def kept(message: str, **more: object) -> Kept:
    given: dict[str, object] = {"broker": BROKER, "at": 1.0, "why": "away", "list": "celery"}
    return Kept(**{**given, "message": message, **more})  # type: ignore[arg-type]


def keep(spool: Spool, *messages: str) -> None:
    spool.keep([kept(message) for message in messages], Deadline(PATIENCE_S))


def fill(spool: Spool, message: str) -> None:
    while True:
        keep(spool, message)


def messages(spool: Spool) -> list[str]:
    return [row.message for row in rows(spool, 10_000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool-default.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    made = Spool(path, limit_mb=16)
    yield made
    made.close()


class TestKeeping:
    def test_it_is_made_when_it_is_needed(self, spool: Spool) -> None:
        assert not spool.exists()
        keep(spool, "a")
        assert spool.exists()

    def test_rows_stay_as_they_are_and_in_order(self, spool: Spool) -> None:
        row = kept(
            "ü \udcff \x00",
            task_id="t-1",
            unique_key="k",
            producer="p",
            number=7,
            list="celery\x06\x163",
        )
        spool.keep([kept("first"), row], Deadline(1))
        keep(spool, "last")
        found = rows(spool, 10)
        assert [r.message for r in found] == ["first", "ü \udcff \x00", "last"]
        same = {name: getattr(found[1], name) for name in Kept.__dataclass_fields__}
        assert Kept(**{**same, "id": 0}) == row

    def test_another_process_sees_them(self, spool: Spool, path: Path) -> None:
        keep(spool, "a")
        with closing(Spool(path, limit_mb=16)) as other:
            keep(other, "b")
        assert messages(spool) == ["a", "b"]

    def test_nobody_else_may_read_it(self, spool: Spool, path: Path) -> None:
        keep(spool, "a")
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_what_was_taken_out_leaves_no_trace(self, spool: Spool, path: Path) -> None:
        keep(spool, "secret" * 100)
        with spool.writing() as connection:
            connection.execute("DELETE FROM kept")
        spool.forget()
        for file in path.parent.iterdir():
            assert b"secret" not in file.read_bytes()

    def test_a_unique_key_is_kept_once(self, spool: Spool) -> None:
        first = spool.keep([kept("a", task_id="t-1", unique_key="k")], Deadline(1))
        second = spool.keep([kept("b", task_id="t-2", unique_key="k")], Deadline(1))
        other = spool.keep([kept("c", task_id="t-3", unique_key="l")], Deadline(1))
        elsewhere = kept("d", task_id="t-4", unique_key="k", broker="redis://other/0")
        assert [first, second, other] == ["t-1", "t-1", "t-3"]
        assert spool.keep([elsewhere], Deadline(1)) == "t-4"
        assert messages(spool) == ["a", "c", "d"]

    def test_but_what_may_have_the_key_on_the_broker_is_kept_too(self, spool: Spool) -> None:
        spool.keep([kept("a", task_id="t-1", unique_key="k")], Deadline(1))
        tried = kept("b", task_id="t-2", unique_key="k", producer="p", number=1)
        assert spool.keep([tried], Deadline(1)) == "t-2"
        assert messages(spool) == ["a", "b"]

    def test_counts_are_by_broker(self, spool: Spool) -> None:
        spool.keep([kept("a"), kept("b"), kept("c", broker="redis://other/0")], Deadline(1))
        with spool.writing() as connection:
            connection.execute("UPDATE kept SET refused = 'why' WHERE message = ?", (b"b",))
        assert counts(spool) == {
            (BROKER, False): 1,
            (BROKER, True): 1,
            ("redis://other/0", False): 1,
        }


class TestTogether:
    def test_threads_wait_for_the_disk_together(self, spool: Spool) -> None:
        """While one writes the others gather, and the next writes for all of them."""
        count = 40
        with spool._lock:
            threads = [threading.Thread(target=keep, args=(spool, f"m{n}")) for n in range(count)]
            for thread in threads:
                thread.start()
            while len(spool._jobs) < count:
                os.sched_yield()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(messages(spool)) == sorted(f"m{n}" for n in range(count))

    def test_what_is_too_large_takes_no_other_along(self, path: Path) -> None:
        with closing(Spool(path, limit_mb=0.25)) as spool:
            errors: list[SpoolError] = []

            def try_large() -> None:
                try:
                    keep(spool, "x" * 1_000_000)
                except SpoolError as error:
                    errors.append(error)

            with spool._lock:
                small = threading.Thread(target=keep, args=(spool, "small"))
                large = threading.Thread(target=try_large)
                large.start()
                small.start()
                while len(spool._jobs) < 2:
                    os.sched_yield()
            small.join(PATIENCE_S)
            large.join(PATIENCE_S)
            assert messages(spool) == ["small"]
            assert "is full" in str(errors[0])

    def test_who_gives_up_waiting_has_kept_nothing(self, spool: Spool) -> None:
        keep(spool, "a")
        with spool._lock, pytest.raises(SpoolError, match="busy"):
            spool.keep([kept("b")], Deadline(0.05))
        keep(spool, "c")
        assert messages(spool) == ["a", "c"]

    def test_processes_that_open_it_at_once_lose_nothing(self, path: Path) -> None:
        each, processes = 25, 6
        code = (
            "import sys; from pathlib import Path; from nxs_tasks.deadline import Deadline; "
            "from nxs_tasks.submission.spool import Kept, Spool\n"
            "spool = Spool(Path(sys.argv[1]), 16); sys.stdin.readline()\n"
            f"for n in range({each}):\n"
            f"    row = Kept(broker={BROKER!r}, at=1.0, why='', list='l', "
            "message=f'{sys.argv[2]}-{n}')\n"
            f"    spool.keep([row], Deadline({PATIENCE_S}))\n"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(path), str(n)], stdin=subprocess.PIPE, text=True
            )
            for n in range(processes)
        ]
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait(PATIENCE_S) for process in started] == [0] * processes
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        with closing(Spool(path, limit_mb=16)) as spool:
            found = messages(spool)
        assert len(found) == len(set(found)) == each * processes
        for n in range(processes):
            assert [m for m in found if m.startswith(f"{n}-")] == [f"{n}-{i}" for i in range(each)]

    def test_a_fork_opens_it_anew(self, spool: Spool, path: Path) -> None:
        """Whoever closes it must not believe that nobody else has it open."""
        keep(spool, "parent")
        kept_read, kept_write = os.pipe()
        closed_read, closed_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                keep(spool, "child")
                os.write(kept_write, b".")
                os.read(closed_read, 1)
                keep(spool, "child again")
                status = 0
            finally:
                os._exit(status)
        assert os.read(kept_read, 1) == b"."
        keep(spool, "parent again")
        spool.close()
        os.write(closed_write, b".")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for end in (kept_read, kept_write, closed_read, closed_write):
            os.close(end)
        assert messages(spool) == ["parent", "child", "parent again", "child again"]

    @pytest.mark.parametrize("first", ["good", "bad"])
    def test_what_is_no_text_takes_no_other_along(self, spool: Spool, first: str) -> None:
        told: dict[str, object] = {}

        def try_one(name: str, task_id: str) -> None:
            try:
                told[name] = spool.keep([kept(name, task_id=task_id)], Deadline(PATIENCE_S))
            except SpoolError as error:
                told[name] = str(error)

        ids = {"good": "t-1", "bad": "\ud800"}
        order = sorted(ids, key=lambda name: name != first)
        with spool._lock:
            threads = []
            for count, name in enumerate(order, 1):
                threads.append(threading.Thread(target=try_one, args=(name, ids[name])))
                threads[-1].start()
                while len(spool._jobs) < count:
                    os.sched_yield()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert told["good"] == "t-1"
        assert "no valid text" in str(told["bad"])
        assert messages(spool) == ["good"]

    def test_a_signal_to_who_writes_for_all_takes_no_other_along(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        insert, writers, told = spool_file._insert, list[str](), list[str]()

        def interrupted(connection: sqlite3.Connection, given: Sequence[Kept]) -> str:
            writers.append(threading.current_thread().name)
            if len(writers) == 1:
                raise KeyboardInterrupt
            return insert(connection, given)

        def try_one() -> None:
            try:
                keep(spool, threading.current_thread().name)
            except KeyboardInterrupt:
                told.append(threading.current_thread().name)

        monkeypatch.setattr(spool_file, "_insert", interrupted)
        threads = [threading.Thread(target=try_one, name=name) for name in ("a", "b", "c")]
        with spool._lock:
            for thread in threads:
                thread.start()
            while len(spool._jobs) < len(threads):
                os.sched_yield()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert told == [writers[0]]
        assert sorted([*messages(spool), *told]) == ["a", "b", "c"]

    def test_a_file_that_is_moved_away_is_no_more_written_to(
        self, spool: Spool, path: Path
    ) -> None:
        keep(spool, "old")
        path.rename(path.with_suffix(".damaged"))
        keep(spool, "new")
        assert messages(spool) == ["new"]


class TestRefusal:
    def test_it_is_as_large_as_it_may_be(self, path: Path) -> None:
        with closing(Spool(path, limit_mb=0.5)) as spool:
            with pytest.raises(SpoolError) as refused:
                fill(spool, "x" * 4000)
            count = len(messages(spool))
            assert str(path) in str(refused.value)
            assert "0.5 MB (setting spool_limit)" in str(refused.value)
            assert 20 < count < 130
            # What is taken out makes room, also where there is none left to write.
            with spool.writing() as connection:
                connection.execute("INSERT INTO sending VALUES ('b', 'p', 1.0, 'l', 1, 1)")
                connection.execute("DELETE FROM kept WHERE id <= 10")
            keep(spool, "x" * 4000)
            assert path.stat().st_size < 2 << 20

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_cannot_be_written(self, path: Path) -> None:
        path.parent.mkdir(mode=0o500)
        with closing(Spool(path, limit_mb=1)) as spool, pytest.raises(SpoolError) as refused:
            keep(spool, "a")
        assert str(path) in str(refused.value)
        assert "NXS_STATE_DIR" in str(refused.value)

    def test_a_folder_that_is_a_file(self, path: Path) -> None:
        path.parent.write_text("in the way")
        with closing(Spool(path, limit_mb=1)) as spool, pytest.raises(SpoolError) as refused:
            keep(spool, "a")
        assert "NXS_STATE_DIR" in str(refused.value)

    def test_a_file_that_is_something_else(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"not a database, but a text that is long enough " * 100)
        with closing(Spool(path, limit_mb=1)) as spool, pytest.raises(SpoolError) as refused:
            keep(spool, "a")
        assert "is damaged" in str(refused.value)
        assert "move the file away" in str(refused.value)

    def test_a_file_of_a_later_version(self, path: Path) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with closing(Spool(path, limit_mb=1)) as spool, pytest.raises(SpoolError) as refused:
            keep(spool, "a")
        assert "version 99" in str(refused.value)

    def test_another_process_that_does_not_let_go(self, spool: Spool, path: Path) -> None:
        keep(spool, "a")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SpoolError, match="is busy"):
                spool.keep([kept("b")], Deadline(0.1))
            other.execute("ROLLBACK")
        keep(spool, "c")
        assert messages(spool) == ["a", "c"]

    def test_no_error_shows_a_message(self, path: Path) -> None:
        with closing(Spool(path, limit_mb=0.1)) as spool, pytest.raises(SpoolError) as refused:
            keep(spool, "secret" * 100_000)
        assert "secret" not in str(refused.value)
        assert refused.value.__cause__ is None


def test_what_is_kept_outlives_a_kill(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from nxs_tasks.deadline import Deadline; "
        "from nxs_tasks.submission.spool import Kept, Spool\n"
        "spool = Spool(Path(sys.argv[1]), 16)\n"
        "for n in range(1_000_000):\n"
        f"    row = Kept(broker={BROKER!r}, at=1.0, why='', list='l', message=str(n))\n"
        "    spool.keep([row], Deadline(60)); print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    process.send_signal(signal.SIGKILL)
    told = [int(line), *map(int, process.stdout.read().split())][-1]
    process.wait(PATIENCE_S)
    process.stdout.close()
    with closing(Spool(path, limit_mb=16)) as spool:
        found = [int(message) for message in messages(spool)]
        keep(spool, "after")
        assert messages(spool)[-1] == "after"
    assert found[: told + 1] == list(range(told + 1))
    assert len(found) <= told + 2
