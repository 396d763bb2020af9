"""Up to which epoch of an owner nothing may be missing that is not marked as lost."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the column; what was sealed before stays as those who took over left it."""
    op.add_column(
        "owner_epochs",
        sa.Column("settled_epoch", integer_type, nullable=False, server_default="0"),
    )
    op.execute("UPDATE owner_epochs SET settled_epoch = sealed_epoch")
