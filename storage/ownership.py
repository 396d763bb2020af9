"""Who owns a log, and how far it is flushed: the fencing token and the cursor.

An epoch is one incarnation of an owner. Every transaction in which an owner makes something
durable first takes its `owner_epochs` row FOR SHARE where the epoch is still its own; taking a new
epoch updates that row. So the one waits for the other: a flush commits before the epoch changes,
or it is refused. (On SQLite the writer's lock does the same.) Every function here runs in the
caller's transaction.
"""

from typing import NamedTuple

from sqlalchemy import Connection, case, select, text, update

from storage.errors import CursorMismatchError, DurabilityMismatchError, FencedError
from storage.schema import cluster, flush_cursors, owner_epochs

DURABILITY = "durability"
"""The name of the cluster's durability level in `cluster`."""

# Whoever comes second, at the same time or later, inserts nothing and reads the first one's row.
_FIRST_LEVEL = text(
    "INSERT INTO cluster (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"
)

_FIRST_EPOCH = text("""
    INSERT INTO owner_epochs (node_id, epoch, level, sealed_epoch) VALUES (:node_id, 0, :level, 0)
    ON CONFLICT (node_id) DO NOTHING
""")

_FIRST_CURSOR = text("""
    INSERT INTO flush_cursors (node_id, lsn) VALUES (:node_id, 0)
    ON CONFLICT (node_id) DO NOTHING
""")


class Ownership(NamedTuple):
    """An owner's epoch, and the LSN end up to which its log is in the archive."""

    epoch: int
    cursor: int


def settle_level(connection: Connection, level: str) -> None:
    """Record the cluster's durability level at its first start; refuse another one later."""
    connection.execute(_FIRST_LEVEL, {"name": DURABILITY, "value": level})
    found = connection.scalar(select(cluster.c.value).where(cluster.c.name == DURABILITY))
    if found != level:
        raise DurabilityMismatchError(str(found), level)


def take_epoch(connection: Connection, node_id: str, level: str, above: int) -> Ownership:
    """Give this node a new epoch, higher than its last one and than `above`."""
    connection.execute(_FIRST_EPOCH, {"node_id": node_id, "level": level})
    connection.execute(_FIRST_CURSOR, {"node_id": node_id})
    seen = owner_epochs.c.epoch
    epoch = connection.scalars(
        update(owner_epochs)
        .where(owner_epochs.c.node_id == node_id)
        .values(epoch=case((seen > above, seen), else_=above) + 1, level=level)
        .returning(owner_epochs.c.epoch)
    ).one()
    return Ownership(epoch, _read_lsn(connection, node_id))


def check_epoch(connection: Connection, node_id: str, epoch: int) -> None:
    """Hold this node's epoch until the transaction ends, or raise FencedError."""
    owner = owner_epochs.c
    held = select(owner.epoch).where(owner.node_id == node_id, owner.epoch == epoch)
    if connection.scalar(held.with_for_update(read=True)) is None:
        raise FencedError(node_id, epoch)


def move_cursor(connection: Connection, node_id: str, from_lsn: int, to_lsn: int) -> None:
    """Move the flush cursor from where it was left, or raise CursorMismatchError."""
    cursor = flush_cursors.c
    moved = connection.execute(
        update(flush_cursors)
        .where(cursor.node_id == node_id, cursor.lsn == from_lsn)
        .values(lsn=to_lsn)
    )
    if moved.rowcount != 1:
        raise CursorMismatchError(from_lsn, _read_lsn(connection, node_id))


def read_ownership(connection: Connection, node_id: str) -> Ownership:
    """Return a node's epoch and cursor in one query; zeros where it never started."""
    row = connection.execute(
        select(owner_epochs.c.epoch, flush_cursors.c.lsn)
        .join(flush_cursors, flush_cursors.c.node_id == owner_epochs.c.node_id)
        .where(owner_epochs.c.node_id == node_id)
    ).first()
    return Ownership(0, 0) if row is None else Ownership(row.epoch, row.lsn)


def _read_lsn(connection: Connection, node_id: str) -> int:
    lsn = connection.scalar(select(flush_cursors.c.lsn).where(flush_cursors.c.node_id == node_id))
    return 0 if lsn is None else lsn
