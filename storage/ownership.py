"""Who owns a log, and how far it is flushed: the fencing token and the cursor.

An epoch is one incarnation of an owner. Every transaction in which an owner makes something
durable first takes its `owner_epochs` row FOR SHARE where the epoch is still its own; taking a new
epoch updates that row. So the one waits for the other: a flush commits before the epoch changes,
or it is refused. (On SQLite the writer's lock does the same.)

Nodes that can reach each other divide the sessions between them (`storage.membership`). A node that has no
address for the others is alone: it owns all sessions, and two that both do would each give out the same seqs.
So it begins only where no other node's epoch is open, and while its own is, no other begins. Retiring a node
seals its epoch; that fences its process, and lets another node begin. Who begins holds the cluster's row,
so of two that begin at once the second sees the first.

Every function here runs in the caller's transaction.
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, case, select, text, update

from storage.errors import (
    ArchiveOwnedError,
    CursorMismatchError,
    DurabilityMismatchError,
    FencedError,
    NodeReturnedError,
)
from storage.schema import cluster, flush_cursors, nodes, owner_epochs

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
    """An owner's epoch, and the LSN end up to which its log is in the archive.

    Records of epochs up to `sealed_epoch` that the archive does not have do not count any more.
    """

    epoch: int
    cursor: int
    sealed_epoch: int = 0


class NodeState(NamedTuple):
    """What the archive knows of a node: its last epoch, whether that was sealed, and its cursor."""

    node_id: str
    epoch: int
    retired: bool
    cursor: int


def settle_level(connection: Connection, level: str) -> None:
    """Record the cluster's durability level at its first start; refuse another one later.

    Holds the cluster's row until the transaction ends.
    """
    connection.execute(_FIRST_LEVEL, {"name": DURABILITY, "value": level})
    found = connection.scalar(
        select(cluster.c.value).where(cluster.c.name == DURABILITY).with_for_update()
    )
    if found != level:
        raise DurabilityMismatchError(str(found), level)


def read_level(connection: Connection) -> str:
    """Return the cluster's durability level; "" before there is one."""
    found = connection.scalar(select(cluster.c.value).where(cluster.c.name == DURABILITY))
    return str(found or "")


def take_epoch(
    connection: Connection, node_id: str, level: str, above: int, *, alone: bool
) -> Ownership:
    """Give this node a new epoch, higher than its last one and than `above`.

    Raises:
        ArchiveOwnedError: another node's epoch is not sealed, and it is alone, or this one is.
    """
    owner = _read_other_owner(connection, node_id, alone=alone)
    if owner is not None:
        raise ArchiveOwnedError(owner)
    if alone:
        # Nobody may count on reaching it, as they could in an earlier life.
        connection.execute(update(nodes).where(nodes.c.node_id == node_id).values(address=""))
    connection.execute(_FIRST_EPOCH, {"node_id": node_id, "level": level})
    connection.execute(_FIRST_CURSOR, {"node_id": node_id})
    seen = owner_epochs.c.epoch
    taken = connection.execute(
        update(owner_epochs)
        .where(owner_epochs.c.node_id == node_id)
        .values(epoch=case((seen > above, seen), else_=above) + 1, level=level, alone=int(alone))
        .returning(owner_epochs.c.epoch, owner_epochs.c.sealed_epoch)
    ).one()
    return Ownership(taken.epoch, _read_lsn(connection, node_id), taken.sealed_epoch)


def check_epoch(connection: Connection, node_id: str, epoch: int) -> None:
    """Hold this node's epoch, which must not be sealed, until the transaction ends.

    Raises:
        FencedError: it is over.
    """
    owner = owner_epochs.c
    held = select(owner.epoch).where(
        owner.node_id == node_id, owner.epoch == epoch, owner.sealed_epoch < epoch
    )
    if connection.scalar(held.with_for_update(read=True)) is None:
        raise FencedError(node_id, epoch)


def check_sealed(connection: Connection, node_id: str, epoch: int) -> None:
    """Hold another node's epoch, which must be sealed and its last one, until the transaction ends.

    Raises:
        NodeReturnedError: it is not sealed, or has begun a new one.
    """
    held = select(owner_epochs.c.epoch).where(*_is_sealed(node_id, epoch))
    if connection.scalar(held.with_for_update(read=True)) is None:
        raise NodeReturnedError(node_id, epoch)


def settle_sealed(connection: Connection, node_id: str, epoch: int) -> bool:
    """Note that nothing of a sealed epoch is missing without a mark (`storage.losses`); hold it as `check_sealed`.

    Return False if it is not sealed, or not the node's last one.
    """
    settled = connection.execute(
        update(owner_epochs).where(*_is_sealed(node_id, epoch)).values(settled_epoch=epoch)
    )
    return settled.rowcount == 1


def _is_sealed(node_id: str, epoch: int) -> tuple[ColumnElement[bool], ...]:
    owner = owner_epochs.c
    return (owner.node_id == node_id, owner.epoch == epoch, owner.sealed_epoch >= epoch)


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
        select(owner_epochs.c.epoch, flush_cursors.c.lsn, owner_epochs.c.sealed_epoch)
        .join(flush_cursors, flush_cursors.c.node_id == owner_epochs.c.node_id)
        .where(owner_epochs.c.node_id == node_id)
    ).first()
    return Ownership(0, 0) if row is None else Ownership(row.epoch, row.lsn, row.sealed_epoch)


def list_nodes(connection: Connection) -> list[NodeState]:
    """Return every node that ever began an epoch, by id."""
    owner = owner_epochs.c
    rows = connection.execute(
        select(owner.node_id, owner.epoch, owner.sealed_epoch, flush_cursors.c.lsn)
        .join(flush_cursors, flush_cursors.c.node_id == owner.node_id)
        .order_by(owner.node_id)
    )
    return [
        NodeState(row.node_id, row.epoch, row.sealed_epoch >= row.epoch, row.lsn) for row in rows
    ]


def seal_epoch(connection: Connection, node_id: str, epoch: int) -> bool:
    """End a node's current epoch; return False if it is not `epoch`, or sealed already."""
    owner = owner_epochs.c
    # One that was not settled yet is part of this one now.
    was_alone = case(
        (owner.sealed_epoch > owner.settled_epoch, owner.sealed_alone), else_=owner.alone
    )
    sealed = connection.execute(
        update(owner_epochs)
        .where(owner.node_id == node_id, owner.epoch == epoch, owner.sealed_epoch < epoch)
        .values(sealed_epoch=epoch, sealed_alone=case((owner.alone == 1, 1), else_=was_alone))
    )
    return sealed.rowcount == 1


def _read_other_owner(connection: Connection, node_id: str, *, alone: bool) -> str | None:
    owner = owner_epochs.c
    others = select(owner.node_id).where(owner.node_id != node_id, owner.sealed_epoch < owner.epoch)
    if not alone:
        reachable = select(nodes.c.node_id).where(nodes.c.address != "")
        others = others.where(owner.node_id.not_in(reachable))
    found: str | None = connection.scalar(others.order_by(owner.node_id).limit(1))
    return found


def _read_lsn(connection: Connection, node_id: str) -> int:
    lsn = connection.scalar(select(flush_cursors.c.lsn).where(flush_cursors.c.node_id == node_id))
    return 0 if lsn is None else lsn
