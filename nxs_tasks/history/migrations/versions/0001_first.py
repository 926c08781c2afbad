"""Transitions, placements and ticks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.String(500)
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def create(table: str, *columns: sa.Column, indexes: tuple[tuple[str, ...], ...]) -> None:
    op.create_table(
        table,
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("fleet", KEY, nullable=False),
        sa.Column("event_id", KEY, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.UniqueConstraint("fleet", "event_id", name=f"uq_{table}_fleet_event_id"),
    )
    for names in indexes:
        op.create_index(f"ix_{table}_{'_'.join(names)}", table, list(names))


def upgrade() -> None:
    create(
        "nxs_transitions",
        sa.Column("instance", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        indexes=(("fleet", "at"), ("fleet", "instance", "at")),
    )
    create(
        "nxs_placements",
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("instance", KEY, nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        indexes=(("fleet", "at"), ("fleet", "task_id", "at"), ("fleet", "instance", "at")),
    )
    create(
        "nxs_ticks",
        sa.Column("job", KEY, nullable=False),
        sa.Column("lateness_s", sa.Float(), nullable=False),
        sa.Column("took_s", sa.Float(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        indexes=(("fleet", "at"), ("fleet", "job", "at")),
    )
