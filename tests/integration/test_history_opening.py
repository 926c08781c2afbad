"""Opening the history: schema, state directory, refusals, secrets."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import SQLModel

from nxs_tasks.clock import FakeClock
from nxs_tasks.errors import HistoryError, HistoryTooNew, StateDirError
from nxs_tasks.history import open_history
from nxs_tasks.history.schema import MIGRATIONS, VERSION_TABLE
from tests.integration.history_records import NOW, ROOT, tick, transition

if TYPE_CHECKING:
    from tests.integration.history_fixtures import Place, Server

pytest_plugins = ["tests.integration.history_fixtures"]

TABLES = {"nxs_transitions", "nxs_placements", "nxs_losses", "nxs_ticks"}


class TestSchema:
    def test_an_empty_database_gets_the_tables(self, place: Place) -> None:
        place.open()
        assert place.tables() == {*TABLES, VERSION_TABLE}

    def test_the_migrations_make_what_the_tables_declare(self, place: Place) -> None:
        place.open()
        assert place.differences() == []

    def test_a_difference_would_be_seen(self, place: Place) -> None:
        place.open()
        place.sql("DROP INDEX ix_nxs_ticks_fleet_job_at", "ALTER TABLE nxs_ticks DROP COLUMN node")
        assert {change[0] for change in place.differences()} == {"add_index", "add_column"}

    def test_opening_again_changes_nothing(self, place: Place) -> None:
        place.open().add([transition()])
        before = place.sql(f"SELECT * FROM {VERSION_TABLE}")
        place.open()
        assert place.sql(f"SELECT * FROM {VERSION_TABLE}") == before
        assert place.open().transitions() == [transition()]

    def test_a_migration_that_fails_leaves_nothing(self, place: Place) -> None:
        place.state_path.mkdir()
        place.sql("CREATE TABLE nxs_ticks (mine INTEGER)")
        with pytest.raises(HistoryError, match="nxs_ticks"):
            place.open()
        assert place.tables() == {"nxs_ticks"}
        place.sql("DROP TABLE nxs_ticks")
        assert place.open().add([tick()]) == 1

    def test_lives_beside_the_tables_of_an_application(self, place: Place) -> None:
        place.state_path.mkdir()
        place.sql(
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('theirs')",
        )
        place.open()
        assert place.sql("SELECT * FROM alembic_version") == [("theirs",)]

    def test_an_application_does_not_find_our_tables_among_its_own(self) -> None:
        assert not TABLES & set(SQLModel.metadata.tables)

    def test_a_newer_database_is_refused_and_not_changed(self, place: Place) -> None:
        place.open().add([transition()])
        place.sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        if not place.url:
            place.sql("PRAGMA journal_mode=DELETE")
        before = contents(place)
        with pytest.raises(HistoryTooNew) as caught:
            place.open()
        for part in (place.shown, "9999", "0002", "Upgrade nxs-tasks", "NXS_HISTORY_URL"):
            assert part in str(caught.value)
        assert contents(place) == before

    def test_the_template_makes_a_migration_that_is_python(
        self, sqlite_place: Place, tmp_path: Path
    ) -> None:
        sqlite_place.open()
        scripts = tmp_path / "migrations"
        shutil.copytree(MIGRATIONS, scripts)
        config = Config()
        config.set_main_option("script_location", str(scripts))
        with sqlite_place.engine().connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, "next", autogenerate=True, rev_id="0003")
        written = (scripts / "versions" / "0003_next.py").read_text()
        assert "down_revision = '0002'" in written
        assert "op." not in written, "the tables and the newest migration differ"
        compile(written, "0003_next.py", "exec")


def contents(place: Place) -> Any:
    if not place.url:
        return hashlib.sha256((place.state_path / "history.db").read_bytes()).hexdigest()
    return {name: place.sql(f"SELECT * FROM {name}") for name in sorted(place.tables())}


class TestStateDirectory:
    def test_is_created_for_this_user_alone(self, sqlite_place: Place) -> None:
        deep = replace(sqlite_place, state_path=sqlite_place.state_path / "a" / "b")
        deep.open()
        assert deep.state_path.stat().st_mode & 0o777 == 0o700
        assert (deep.state_path / "history.db").is_file()

    def test_is_not_needed_for_a_url(self, sqlite_place: Place, tmp_path: Path) -> None:
        file = tmp_path / "an@other.db"
        history = open_history(f"sqlite:///{file}", sqlite_place.state_path, FakeClock())
        history.add([tick()])
        assert file.is_file()
        assert not sqlite_place.state_path.exists()
        assert str(file) in repr(history)

    @pytest.mark.parametrize("below", ["file", "file/deeper", "/proc", "/proc/nxs"])
    def test_that_cannot_be_written_is_named(self, tmp_path: Path, below: str) -> None:
        if below.startswith("/proc") and not Path("/proc/self").exists():
            pytest.skip("this system has no read-only /proc")
        (tmp_path / "file").touch()
        path = tmp_path / below
        with pytest.raises(StateDirError) as caught:
            open_history("", path, FakeClock())
        for part in (f"{path} ", "state_dir", "NXS_STATE_DIR"):
            assert part in str(caught.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_without_permission_is_named(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StateDirError, match="Permission denied"):
            open_history("", tmp_path, FakeClock())


class TestRefused:
    @pytest.mark.parametrize("noise", [b"not a database " * 99, b"SQLite format 3\0" + b"x" * 999])
    def test_a_file_that_is_no_database_is_named_and_kept(
        self, sqlite_place: Place, noise: bytes
    ) -> None:
        sqlite_place.state_path.mkdir()
        file = sqlite_place.state_path / "history.db"
        file.write_bytes(noise)
        with pytest.raises(HistoryError, match=f"{file}: .*; .* move away that file"):
            sqlite_place.open()
        assert file.read_bytes() == noise

    def test_a_directory_in_the_place_of_the_file_is_named(self, sqlite_place: Place) -> None:
        (sqlite_place.state_path / "history.db").mkdir(parents=True)
        with pytest.raises(HistoryError, match=r"history\.db: unable to open"):
            sqlite_place.open()

    def test_a_file_in_no_directory_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "absent" / "history.db"
        with pytest.raises(HistoryError, match=f"{file}: .*No such file.*NXS_HISTORY_URL"):
            open_history(f"sqlite:///{file}", tmp_path, FakeClock())

    @pytest.mark.parametrize(
        "url",
        ["mysql://u:hunter2@h/d", "postgresql+psycopg2://u:hunter2@h/d", "sqlite+aiosqlite:///x"],
    )
    def test_another_dialect_is_told_what_is_supported(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(HistoryError) as caught:
            open_history(url, tmp_path, FakeClock())
        for part in (url.partition(":")[0], "sqlite://", "postgresql://", "NXS_HISTORY_URL"):
            assert part in str(caught.value)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["nonsense", "sqlite://", "sqlite:///:memory:", "sqlite:///f?a=b"]
    )
    def test_what_is_no_shared_database_is_refused(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(HistoryError, match="NXS_HISTORY_URL"):
            open_history(url, tmp_path, FakeClock())

    def test_a_missing_driver_says_what_to_install(self) -> None:
        script = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from nxs_tasks.history import open_history\n"
            "open_history('postgres://u:hunter2@h/d', None, None)"
        )
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert "HistoryError: history postgresql://u@h/d: " in run.stderr
        assert "install nxs-tasks[postgres]" in run.stderr
        assert "hunter2" not in run.stderr

    def test_a_lost_database_is_an_error_that_names_it(
        self, postgresql: Server, tmp_path: Path
    ) -> None:
        place = postgresql.new_place(tmp_path)
        history = place.open()
        postgresql.run(f"ALTER DATABASE {place.shown} RENAME TO lost")
        calls: list[Callable[[], object]] = [
            partial(history.add, [tick()]),
            history.transitions,
            history.placements,
            history.ticks,
            partial(history.prune, NOW, 1),
        ]
        for call in calls:
            with pytest.raises(HistoryError, match=f"{place.shown}.*does not exist"):
                call()


def told(url: str, tmp_path: Path) -> str:
    """All that a log of the failure to open `url` would show."""
    with pytest.raises(HistoryError) as caught:
        open_history(url, tmp_path, FakeClock())
    return "".join(traceback.format_exception(caught.value))


class TestSecrets:
    def test_the_right_password_opens(self, postgresql: Server, tmp_path: Path) -> None:
        postgresql.place(tmp_path)
        url = postgresql.as_keeper(postgresql.keeper_password)
        history = open_history(url.replace("postgresql:", "postgres:"), tmp_path, FakeClock())
        assert history.add([tick()]) == 1
        assert postgresql.keeper_password not in repr(history)

    def test_a_wrong_password_is_not_shown(self, postgresql: Server, tmp_path: Path) -> None:
        message = told(postgresql.as_keeper("hunter2-hunter2"), tmp_path)
        assert "password authentication failed" in message
        assert f"postgresql://{postgresql.keeper}@" in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://127.0.0.1:1/d?user=u&password=hunter2",
            "postgresql://u:p@127.0.0.1:1/d?sslpassword=hunter2",
            "postgresql://u:p@127.0.0.1:1/d?hunter2=1&password=hunter2",
            "postgresql://u:p@hunter2@127.0.0.1:1/d",
            "postgresql://u:p@hunter2/x@127.0.0.1:1/d",
            "postgresql://u:p@hunter2?x@127.0.0.1:1/d",
            "postgresql://u:p@127.0.0.1:1/hunter2@127.0.0.1:1/d",
            "postgresql://u:p@127.0.0.1:hunter2/d",
        ],
    )
    def test_a_password_in_the_wrong_place_is_not_shown(self, tmp_path: Path, url: str) -> None:
        assert "hunter2" not in told(url, tmp_path)

    @settings(max_examples=40, deadline=None)
    @given(
        password=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1),
        encode=st.sampled_from([partial(quote, safe=""), str]),
    )
    def test_no_password_is_shown(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        password: str,
        encode: Callable[[str], str],
    ) -> None:
        secret = f"hunter2{password}hunter2"
        message = told(
            f"postgresql://u:{encode(secret)}@127.0.0.1:1/d", tmp_path_factory.getbasetemp()
        )
        assert "hunter2" not in message
