"""What Alembic runs for each command: our connection, our tables, our version table."""

from alembic import context

from nxs_tasks.history.schema import VERSION_TABLE
from nxs_tasks.history.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
