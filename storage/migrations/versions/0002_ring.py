"""Who is in the cluster, which slots each node owns, and what was changed about it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

name_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; the first node that starts fills them."""
    op.create_table(
        "nodes",
        sa.Column("node_id", name_type, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("weight", integer_type, nullable=False),
        sa.Column("beat", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "slots",
        sa.Column("slot", integer_type, nullable=False),
        sa.Column("owner", name_type, nullable=False),
        sa.Column("target", name_type, nullable=False),
        sa.PrimaryKeyConstraint("slot"),
        sqlite_strict=True,
    )
    op.create_table(
        "ring_changes",
        sa.Column("version", integer_type, nullable=False),
        sa.Column("at_ms", integer_type, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("node_id", name_type, nullable=False),
        sa.Column("slots_moved", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("version"),
        sqlite_strict=True,
    )
