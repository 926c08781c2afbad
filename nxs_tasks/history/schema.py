"""Bring the tables of a database to what this version of NXS knows."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from nxs_tasks.errors import HistoryTooNew
from nxs_tasks.history.address import SETTING, Address

#: Not Alembic's own default, which the user's application may use in the same database.
VERSION_TABLE = "nxs_schema_version"
MIGRATIONS = Path(__file__).parent / "migrations"

#: Alembic keeps the migration that runs in a module of its own: one a process.
_one_at_a_time = threading.Lock()


def is_current(connection: Connection, address: Address) -> bool:
    """Tell whether nothing is left to migrate. Changes nothing.

    Raises `HistoryTooNew` if the database has a revision that this version does not know.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    known = {script.revision for script in scripts.walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found = set(context.get_current_heads())
    newest = scripts.get_current_head()
    if found - known:
        raise HistoryTooNew(
            f"history {address.shown} has schema revision {', '.join(sorted(found - known))}; "
            f"the newest that this version of NXS knows is {newest}. Nothing was changed. "
            f"Upgrade nxs-tasks, or set {SETTING} to another database"
        )
    return found == {newest}


def upgrade(connection: Connection) -> None:
    """Run what is missing, inside the transaction that `connection` has begun."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
