"""Up to which epoch of an owner nothing may be missing that is not marked as lost, and what was its own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; what was taken over before stays as it was left."""
    for name in ("settled_epoch", "alone", "sealed_alone"):
        op.add_column(
            "owner_epochs", sa.Column(name, integer_type, nullable=False, server_default="0")
        )
    op.execute(
        "UPDATE owner_epochs SET settled_epoch = sealed_epoch"
        " WHERE node_id NOT IN (SELECT owner FROM slots)"
    )
    op.execute(
        "UPDATE owner_epochs SET alone = 1"
        " WHERE node_id NOT IN (SELECT node_id FROM nodes WHERE address <> '')"
    )
