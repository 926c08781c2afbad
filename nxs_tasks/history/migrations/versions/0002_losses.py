"""Losses of holders."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.String(500)
TABLE = "nxs_losses"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("fleet", KEY, nullable=False),
        sa.Column("event_id", KEY, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("instance", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("became", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
        sa.UniqueConstraint("fleet", "event_id", name=f"uq_{TABLE}_fleet_event_id"),
    )
    for names in (("fleet", "at"), ("fleet", "task_id", "at"), ("fleet", "instance", "at")):
        op.create_index(f"ix_{TABLE}_{'_'.join(names)}", TABLE, list(names))
