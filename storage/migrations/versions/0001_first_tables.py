"""The first tables: ownership, sessions, messages, dead letters, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

name_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
integer_type = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create them."""
    _create_ownership()
    _create_sessions()
    _create_messages()
    _create_keys()


def _create_ownership() -> None:
    op.create_table(
        "cluster",
        sa.Column("name", name_type, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "owner_epochs",
        sa.Column("node_id", name_type, nullable=False),
        sa.Column("epoch", integer_type, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("sealed_epoch", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "flush_cursors",
        sa.Column("node_id", name_type, nullable=False),
        sa.Column("lsn", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_strict=True,
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("user_id", name_type, nullable=False),
        sa.Column("members", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at_ms", integer_type, nullable=False),
        sa.Column("updated_at_ms", integer_type, nullable=False),
        sa.Column("version", integer_type, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session"),
        sqlite_strict=True,
    )
    op.create_index(
        "sessions_newest_first", "sessions", ["workspace", sa.text("created_at_ms DESC"), "session"]
    )
    op.create_table(
        "session_members",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("user_id", name_type, nullable=False),
        sa.Column("created_at_ms", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session", "user_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "session_members_newest_first",
        "session_members",
        ["workspace", "user_id", sa.text("created_at_ms DESC"), "session"],
    )
    op.create_table(
        "read_cursors",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("user_id", name_type, nullable=False),
        sa.Column("seq", integer_type, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session", "user_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("seq", integer_type, nullable=False),
        sa.Column("id", name_type, nullable=False),
        sa.Column("sender", name_type, nullable=False),
        sa.Column("client_id", name_type, nullable=True),
        sa.Column("digest", integer_type, nullable=False),
        sa.Column("at_ms", integer_type, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "session", "seq"),
        sqlite_strict=True,
    )
    op.create_table(
        "dead_letters",
        sa.Column("table_name", name_type, nullable=False),
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("session", name_type, nullable=False),
        sa.Column("seq", integer_type, nullable=False),
        sa.Column("sender", name_type, nullable=False),
        sa.Column("id", name_type, nullable=False),
        sa.Column("client_id", name_type, nullable=True),
        sa.Column("digest", integer_type, nullable=False),
        sa.Column("at_ms", integer_type, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "workspace", "session", "seq", "sender"),
        sqlite_strict=True,
    )


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", name_type, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("workspace", name_type, nullable=False),
        sa.Column("created_at_ms", integer_type, nullable=False),
        sa.Column("revoked_at_ms", integer_type, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "secrets",
        sa.Column("name", name_type, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
