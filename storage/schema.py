"""The archive's tables, the same on SQLite and PostgreSQL.

Invariants:

* Every key begins with the workspace, wherever a row belongs to one.
* `messages` has no unique index beyond its primary key: a flush must never be refused for a row
  that was already acknowledged.
* Bodies are `text`: the record's own bytes, never parsed, never re-encoded. A body that the
  database refuses goes to `dead_letters` as raw bytes.
* `flush_cursors` is the only place where the flushed position lives, and `owner_epochs` the only
  place where the fencing token lives. They are apart so that a flush can share-lock the one while
  it moves the other.
* `log_batches` holds what was acknowledged as `replicated` and is not flushed yet, batch by batch.
* A slot's row names its one owner: who gives out seqs in the slot's sessions. `nodes` and `slots` change
  with the ring's version (in `cluster`), heartbeats apart.
* `chunks` holds the pieces of answers that are still being given: they go in the transaction that closes their
  dispatch.
* `session_members` is derived from `sessions` (its owner and its `members`), for listing by user.

* `agents.secrets` are sealed under a key that is not in the archive; a deleted agent has none.

Text is compared byte by byte (`COLLATE "C"`), so that both databases order ids as Python does.
SQLite's tables are STRICT, so that a value of the wrong type is refused there too. `messages`
keeps its rowid: clustering the rows by session instead made flushes to 5,000 sessions three times
as slow.

These definitions are what the statements are built from; the tables themselves are made by the
migrations. A test holds the two together.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

REVISION: Final = "0006"
"""The migration that these tables belong to: the newest one in `storage/migrations/versions`."""

metadata = MetaData()

name_type: Final[TypeEngine[str]] = Text().with_variant(Text(collation="C"), "postgresql")
integer_type: Final[TypeEngine[int]] = BigInteger().with_variant(Integer(), "sqlite")

cluster = Table(
    "cluster",
    metadata,
    Column("name", name_type, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)

owner_epochs = Table(
    "owner_epochs",
    metadata,
    Column("node_id", name_type, primary_key=True),
    Column("epoch", integer_type, nullable=False),
    Column("level", Text, nullable=False),
    Column("sealed_epoch", integer_type, nullable=False),
    # Nothing that it acknowledged up to this epoch is missing without a mark (`storage.losses`).
    Column("settled_epoch", integer_type, nullable=False, server_default="0"),
    # Whether all sessions were its own, without a ring: in its last epoch, and in the sealed one that is not settled.
    Column("alone", integer_type, nullable=False, server_default="0"),
    Column("sealed_alone", integer_type, nullable=False, server_default="0"),
    sqlite_strict=True,
)

flush_cursors = Table(
    "flush_cursors",
    metadata,
    Column("node_id", name_type, primary_key=True),
    Column("lsn", integer_type, nullable=False),
    sqlite_strict=True,
)

log_batches = Table(
    "log_batches",
    metadata,
    Column("node_id", name_type, nullable=False),
    Column("first_lsn", integer_type, nullable=False),
    Column("lsn_end", integer_type, nullable=False),
    Column("epoch", integer_type, nullable=False),
    Column("checksum", integer_type, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("node_id", "first_lsn"),
    sqlite_strict=True,
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", name_type, primary_key=True),
    Column("address", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("weight", integer_type, nullable=False),
    Column("beat", integer_type, nullable=False),
    # For how long its beat must stand still before others may take it over; 0: only when they are told to.
    Column("patience_ms", integer_type, nullable=False, server_default="0"),
    sqlite_strict=True,
)

slots = Table(
    "slots",
    metadata,
    Column("slot", integer_type, primary_key=True, autoincrement=False),
    # "" where nobody has it, or should have it.
    Column("owner", name_type, nullable=False),
    Column("target", name_type, nullable=False),
    sqlite_strict=True,
)

ring_changes = Table(
    "ring_changes",
    metadata,
    Column("version", integer_type, primary_key=True, autoincrement=False),
    Column("at_ms", integer_type, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("node_id", name_type, nullable=False),
    Column("slots_moved", integer_type, nullable=False),
    sqlite_strict=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("user_id", name_type, nullable=False),
    Column("members", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at_ms", integer_type, nullable=False),
    Column("updated_at_ms", integer_type, nullable=False),
    Column("version", integer_type, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "session"),
    sqlite_strict=True,
)
Index(
    "sessions_newest_first",
    sessions.c.workspace,
    sessions.c.created_at_ms.desc(),
    sessions.c.session,
)

session_members = Table(
    "session_members",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("user_id", name_type, nullable=False),
    Column("created_at_ms", integer_type, nullable=False),
    PrimaryKeyConstraint("workspace", "session", "user_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
Index(
    "session_members_newest_first",
    session_members.c.workspace,
    session_members.c.user_id,
    session_members.c.created_at_ms.desc(),
    session_members.c.session,
)

messages = Table(
    "messages",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("seq", integer_type, nullable=False),
    Column("id", name_type, nullable=False),
    Column("sender", name_type, nullable=False),
    Column("client_id", name_type),
    Column("digest", integer_type, nullable=False),
    Column("at_ms", integer_type, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "session", "seq"),
    sqlite_strict=True,
)

read_cursors = Table(
    "read_cursors",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("user_id", name_type, nullable=False),
    Column("seq", integer_type, nullable=False),
    PrimaryKeyConstraint("workspace", "session", "user_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

dispatches = Table(
    "dispatches",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("dispatch", name_type, nullable=False),
    Column("agent", name_type, nullable=False),
    Column("state", Text, nullable=False),
    # 1 while anything is still to come of it.
    Column("is_open", integer_type, nullable=False),
    Column("created_at_ms", integer_type, nullable=False),
    Column("updated_at_ms", integer_type, nullable=False),
    Column("version", integer_type, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "session", "dispatch"),
    sqlite_strict=True,
)
# Ids are in order of time.
Index("dispatches_by_agent", dispatches.c.workspace, dispatches.c.agent, dispatches.c.dispatch)
Index("dispatches_by_id", dispatches.c.dispatch)
Index(
    "dispatches_open",
    dispatches.c.workspace,
    dispatches.c.session,
    sqlite_where=dispatches.c.is_open == 1,
    postgresql_where=dispatches.c.is_open == 1,
)

chunks = Table(
    "chunks",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    Column("dispatch", name_type, nullable=False),
    Column("attempt", integer_type, nullable=False),
    Column("place", integer_type, nullable=False),
    Column("at_ms", integer_type, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "session", "dispatch", "attempt", "place"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("table_name", name_type, nullable=False),
    Column("workspace", name_type, nullable=False),
    Column("session", name_type, nullable=False),
    # A message's seq; a session's version; a read cursor's seq; a dispatch's version; a chunk's place.
    Column("seq", integer_type, nullable=False),
    # A message's sender; a session's owner; a read cursor's user; a dispatch; a chunk's dispatch and attempt.
    Column("sender", name_type, nullable=False),
    Column("id", name_type, nullable=False),
    Column("client_id", name_type),
    Column("digest", integer_type, nullable=False),
    Column("at_ms", integer_type, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    PrimaryKeyConstraint("table_name", "workspace", "session", "seq", "sender"),
    sqlite_strict=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", name_type, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("workspace", name_type, nullable=False),
    Column("created_at_ms", integer_type, nullable=False),
    Column("revoked_at_ms", integer_type),
    sqlite_strict=True,
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", name_type, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    sqlite_strict=True,
)

agents = Table(
    "agents",
    metadata,
    Column("workspace", name_type, nullable=False),
    Column("id", name_type, nullable=False),
    Column("version", integer_type, nullable=False),
    Column("created_at_ms", integer_type, nullable=False),
    Column("updated_at_ms", integer_type, nullable=False),
    Column("deleted", integer_type, nullable=False),
    Column("body", Text, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    PrimaryKeyConstraint("workspace", "id"),
    sqlite_strict=True,
)
