"""What an owner may have taken with it, marked in each session where messages may be missing.

An owner that acknowledges as `local`, and is given up, may have given out seqs that nobody knows of. So nobody gives
out any that it can have: whoever goes on begins `LOST_SEQS` further, and in between stands one row in `messages`, a
*gap*, which readers are shown where the messages would have been::

    {"type":"gap","session":S,"from":44,"to":4294967339,"reason":"lost"}

Its seq is its last one, so that the head of the session is behind it.

The epoch of a node is settled when nothing of it can be missing without a mark: all of it was in the archive when the
node stopped, or the marks are set. They are set before anybody serves the sessions again. Each step may be repeated,
and taken by several nodes at once.

Every function here runs in the caller's transaction.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, TextClause, select, text, update

from storage.errors import CursorMismatchError
from storage.history import SessionKey
from storage.ownership import read_ownership
from storage.schema import owner_epochs

LOCAL = "local"
"""The durability level at which what was acknowledged may be on the owner's disk alone."""

LOST_SEQS = 2**32
"""Seqs that are left out: more than there are in any log that was not flushed. A client's integers of 53 bits
hold two million losses of one session."""

_MARK = """
    INSERT INTO messages (workspace, session, seq, id, sender, client_id, digest, at_ms, body)
    SELECT workspace, session, head + {seqs}, :loss, '', NULL, 0, :at_ms,
           '{{"type":"gap","session":"' || session || '","from":' || (head + 1)
           || ',"to":' || (head + {seqs}) || ',"reason":"lost"}}'
    FROM (
        SELECT named.workspace, named.session, coalesce(
            (SELECT max(seq) FROM (
                SELECT max(m.seq) AS seq FROM messages AS m
                WHERE m.workspace = named.workspace AND m.session = named.session
                UNION ALL
                SELECT max(d.seq) FROM dead_letters AS d
                WHERE d.table_name = 'messages'
                  AND d.workspace = named.workspace AND d.session = named.session
            ) AS heads), 0) AS head
        FROM (SELECT value ->> 0 AS workspace, value ->> 1 AS session FROM {rows}) AS named
    ) AS headed
    WHERE NOT EXISTS (
        -- Marked already.
        SELECT 1 FROM messages AS g
        WHERE g.workspace = headed.workspace AND g.session = headed.session
          AND g.seq = headed.head AND g.id = :loss
    )
    ON CONFLICT (workspace, session, seq) DO NOTHING
"""


class Loss(NamedTuple):
    """An owner that was given up, at this epoch, and may have acknowledged what the archive lacks.

    `alone`: all sessions were its own. Else those of its slots.
    """

    node_id: str
    epoch: int
    alone: bool = False


def prepare_mark(rows_sql: str) -> TextClause:
    """Return the statement of `mark`, made once for one dialect."""
    return text(_MARK.format(rows=rows_sql, seqs=LOST_SEQS))


def list_losses(connection: Connection) -> list[Loss]:
    """Return the sealed epochs that are not settled, by node."""
    owner = owner_epochs.c
    rows = connection.execute(
        select(owner.node_id, owner.sealed_epoch, owner.sealed_alone)
        .where(owner.level == LOCAL, owner.sealed_epoch > owner.settled_epoch)
        .order_by(owner.node_id)
    )
    return [Loss(row.node_id, row.sealed_epoch, row.sealed_alone == 1) for row in rows]


def mark(
    connection: Connection,
    statement: TextClause,
    loss: Loss,
    keys: Sequence[SessionKey],
    at_ms: int,
) -> bool:
    """Mark sessions that were the owner's; return False if its epoch is settled: they may be served again."""
    owner = owner_epochs.c
    held = select(owner.sealed_epoch).where(
        owner.node_id == loss.node_id,
        owner.sealed_epoch == loss.epoch,
        owner.settled_epoch < loss.epoch,
    )
    if connection.scalar(held.with_for_update(read=True)) is None:
        return False
    parameters = {
        "rows": msgspec.json.encode(keys).decode(),
        "loss": f"{loss.node_id}:{loss.epoch}",
        "at_ms": at_ms,
    }
    connection.execute(statement, parameters)
    return True


def settle(connection: Connection, loss: Loss) -> None:
    """Note that every session that was the owner's is marked."""
    owner = owner_epochs.c
    where = (owner.node_id == loss.node_id, owner.sealed_epoch == loss.epoch)
    connection.execute(update(owner_epochs).where(*where).values(settled_epoch=loss.epoch))


def settle_whole(connection: Connection, node_id: str, epoch: int, cursor: int) -> None:
    """Note that the archive has all that this node acknowledged, and that it will acknowledge no more in its epoch.

    Raises:
        CursorMismatchError: it has not: not all below `cursor` is there.
    """
    owner = owner_epochs.c
    where = (owner.node_id == node_id, owner.epoch == epoch, owner.sealed_epoch < epoch)
    connection.execute(update(owner_epochs).where(*where).values(settled_epoch=epoch))
    found = read_ownership(connection, node_id).cursor
    if found < cursor:
        raise CursorMismatchError(cursor, found)


def unsettle(connection: Connection, node_id: str, epoch: int) -> None:
    """Note that a node may have acknowledged what is missing, whatever it said when it stopped."""
    owner = owner_epochs.c
    where = (owner.node_id == node_id, owner.epoch == epoch, owner.settled_epoch >= epoch)
    connection.execute(update(owner_epochs).where(*where).values(settled_epoch=epoch - 1))
