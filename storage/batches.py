"""Batches in the archive: the second place where a `replicated` batch is durable before it is acknowledged.

A batch is one row: the bytes of its records, as the log has them, under the LSN that it begins at. The
statement that adds it holds the owner's epoch, as every transaction of an owner does. So whoever has sealed an
epoch, or taken the next one, and reads afterwards, reads all that was ever acknowledged under it.

A row goes when the flush cursor has passed it, in the flush's own transaction: what is past the cursor is here.
Rows and cursor together are without a hole.

A batch whose outcome is unknown is added again, under the same LSN: if it stands there from the same epoch, that
is the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fastcrc.crc32 import iscsi as crc32c
from sqlalchemy import Connection, select, text

from storage.errors import CorruptLogError
from storage.frame import Frame, MalformedError, decode_records
from storage.record import StoredRecord
from storage.schema import log_batches

REPLICATED = "replicated"
"""The durability level at which a batch is here before it is acknowledged."""

ADD = """
    INSERT INTO log_batches AS old (node_id, first_lsn, lsn_end, epoch, checksum, payload)
    SELECT node_id, CAST(%s AS bigint), CAST(%s AS bigint), epoch, CAST(%s AS bigint), CAST(%s AS bytea)
    FROM owner_epochs
    WHERE node_id = %s AND epoch = %s AND sealed_epoch < epoch
    FOR SHARE
    ON CONFLICT (node_id, first_lsn) DO UPDATE SET epoch = excluded.epoch
    WHERE (old.epoch, old.lsn_end, old.checksum) = (excluded.epoch, excluded.lsn_end, excluded.checksum)
"""
"""Adds one batch, or finds it there; changes no row if the epoch is over. PostgreSQL only, for its driver."""

PAGE_ROWS = 32
"""Batches read at once: each is half a megabyte as a rule, four at most."""

_TRIM = text("DELETE FROM log_batches WHERE node_id = :node_id AND lsn_end <= :cursor")


class Batch(NamedTuple):
    """Records `first_lsn` up to `lsn_end`, as the log's bytes."""

    first_lsn: int
    lsn_end: int
    payload: bytes


class BatchWriter(Protocol):
    """Adds one owner's batches to the archive. Blocking; one call at a time."""

    def add(self, batch: Batch) -> None:
        """Return when the batch is durable there.

        Raises:
            FencedError: the owner's epoch is over; the batch is not there and never will be.
            ArchiveUnavailableError: no answer: it may be there. Add it again.
        """
        ...

    def close(self) -> None:
        """Close its connection."""
        ...


def checksum(payload: bytes) -> int:
    """Return what stands beside a payload, so that damage is seen."""
    return int(crc32c(payload))


def read_batches(connection: Connection, node_id: str, from_lsn: int) -> list[StoredRecord]:
    """Return records of a node from `from_lsn` on, of whatever epoch: those of `PAGE_ROWS` batches at most.

    Raises:
        CorruptLogError: they are damaged, or not without a hole.
    """
    table = log_batches.c
    rows = connection.execute(
        select(table.first_lsn, table.lsn_end, table.checksum, table.payload)
        .where(table.node_id == node_id, table.lsn_end > from_lsn)
        .order_by(table.first_lsn)
        .limit(PAGE_ROWS)
    )
    records: list[StoredRecord] = []
    next_lsn = from_lsn
    for row in rows:
        batch = Batch(row.first_lsn, row.lsn_end, bytes(row.payload))
        if batch.first_lsn > next_lsn:
            raise _damaged(node_id, next_lsn, "the batch is missing")
        if checksum(batch.payload) != row.checksum:
            raise _damaged(node_id, batch.first_lsn, "its checksum is wrong")
        records += [each for each in _decode(node_id, batch) if each.lsn >= next_lsn]
        next_lsn = batch.lsn_end
    return records


def list_owners(connection: Connection) -> list[str]:
    """Return the nodes that have batches."""
    table = log_batches.c
    return list(connection.scalars(select(table.node_id).distinct().order_by(table.node_id)))


def read_batches_end(connection: Connection, node_id: str) -> int:
    """Return the LSN end of a node's last batch; 0 if there is none."""
    table = log_batches.c
    end = connection.scalar(
        select(table.lsn_end)
        .where(table.node_id == node_id)
        .order_by(table.first_lsn.desc())
        .limit(1)
    )
    return end or 0


def trim(connection: Connection, node_id: str, cursor: int) -> None:
    """Remove the batches that the archive has as rows: all of their records are below `cursor`."""
    connection.execute(_TRIM, {"node_id": node_id, "cursor": cursor})


def _decode(node_id: str, batch: Batch) -> Sequence[StoredRecord]:
    count = batch.lsn_end - batch.first_lsn
    frame = Frame(0, count, batch.first_lsn, batch.first_lsn, 0, batch.payload)
    try:
        return list(decode_records(frame, {}))
    except MalformedError as error:
        raise _damaged(node_id, batch.first_lsn, error.reason) from error


def _damaged(node_id: str, lsn: int, reason: str) -> CorruptLogError:
    return CorruptLogError(f"log_batches of node {node_id}", lsn, reason)
