"""The migrations, oldest first. `schema.upgrade` runs what a database lacks.

A new one: change `tables.py`, then call `alembic.command.revision(config, "what changes",
autogenerate=True, rev_id="0002")` with a configuration as in `schema.upgrade`, and read what it
wrote. There is no way down: an older NXS refuses a newer database instead of losing its rows.
"""
