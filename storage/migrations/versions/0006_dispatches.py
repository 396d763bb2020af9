"""Calls to agents, and the pieces of answers that are still being given."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

name_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; the log has had record types for what they hold from the first day."""
    op.create_table(
        "dispatches",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("dispatch", name_type, nullable=False),
        sa.Column("agent", name_type, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("is_open", integer_type, nullable=False),
        sa.Column("created_at_ms", integer_type, nullable=False),
        sa.Column("updated_at_ms", integer_type, nullable=False),
        sa.Column("version", integer_type, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session", "dispatch"),
        sqlite_strict=True,
    )
    op.create_index("dispatches_by_agent", "dispatches", ["workspace", "agent", "dispatch"])
    op.create_index("dispatches_by_id", "dispatches", ["dispatch"])
    op.create_index(
        "dispatches_open",
        "dispatches",
        ["workspace", "session"],
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open = 1"),
    )
    op.create_table(
        "chunks",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("dispatch", name_type, nullable=False),
        sa.Column("attempt", integer_type, nullable=False),
        sa.Column("place", integer_type, nullable=False),
        sa.Column("at_ms", integer_type, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session", "dispatch", "attempt", "place"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
