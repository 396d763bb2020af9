"""The agents that sessions may call."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

name_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "agents",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("id", name_type, nullable=False),
        sa.Column("version", integer_type, nullable=False),
        sa.Column("created_at_ms", integer_type, nullable=False),
        sa.Column("updated_at_ms", integer_type, nullable=False),
        sa.Column("deleted", integer_type, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("secrets", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "id"),
        sqlite_strict=True,
    )
