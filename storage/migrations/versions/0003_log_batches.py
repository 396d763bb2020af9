"""Where an owner's batches have their second copy, and for how long others wait for an owner."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

name_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table; owners that run `replicated` fill it."""
    op.create_table(
        "log_batches",
        sa.Column("node_id", name_type, nullable=False),
        sa.Column("first_lsn", integer_type, nullable=False),
        sa.Column("lsn_end", integer_type, nullable=False),
        sa.Column("epoch", integer_type, nullable=False),
        sa.Column("checksum", integer_type, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("node_id", "first_lsn"),
        sqlite_strict=True,
    )
    op.add_column(
        "nodes", sa.Column("patience_ms", integer_type, nullable=False, server_default="0")
    )
    if op.get_context().dialect.name == "postgresql":
        # A row lives for a second: compressing it would only take time.
        op.execute("ALTER TABLE log_batches ALTER COLUMN payload SET STORAGE EXTERNAL")
        # All of its rows are dead soon: to be vacuumed whenever anybody looks, and without a pause.
        op.execute(
            "ALTER TABLE log_batches SET (autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0,"
            " toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000,"
            " toast.autovacuum_vacuum_cost_delay = 0)"
        )
