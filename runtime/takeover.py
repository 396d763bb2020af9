"""Taking over from an owner that does not come back: what it acknowledged goes on elsewhere.

In this order, each step of which may be repeated, by several nodes at once, and by another if one dies in between::

    seal its epoch     from here on none of its transactions commits
    archive            what it added to the archive as batches becomes rows, as its own flush would have made them
    mark               where it acknowledged as `local`, what may be missing is marked in each of its sessions
    give away          its slots are nobody's, and meant for nodes that live: those claim them

The node may begin a new epoch at any time. Then it has what is its own, and nothing more is done here.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec
import trio

from runtime import planning
from runtime.codec import decode_record
from runtime.losses import Ask, mark_lost
from storage import (
    LOCAL,
    Archive,
    CorruptLogError,
    CursorMismatchError,
    Loss,
    NodeEntry,
    Record,
    Ring,
    RingChangedError,
    StoredRecord,
    failpoint,
)

FLUSH_ROWS, FLUSH_BYTES = 5_000, 8 * 2**20
"""Records, and bytes of their bodies, in one transaction, as in an owner's own flushes."""

RETARGET_SECONDS = 10.0
"""How long a slot that is nobody's waits for a node that is silent, before it is meant for another."""


def is_due(ring: Ring, node: NodeEntry, silent_seconds: float) -> bool:
    """Tell whether a node is to be taken over: it was sealed, or has been silent for as long as it allowed itself."""
    if node.node_id not in ring.owners and node.node_id not in ring.targets:
        return False
    return node.sealed or 0 < node.patience_ms <= silent_seconds * 1_000


async def take_over(
    archive: Archive,
    ask: Ask,
    dead: NodeEntry,
    beat: int | None,
    alive: Collection[str],
    actor: str,
    at_ms: int,
) -> int:
    """Take over from a node that was heard of last at `beat`; return how many slots it had, 0 if others were quicker.

    Raises:
        NodeReturnedError: it has begun again.
        PlanError: nobody lives who could own anything.
        CorruptLogError: what it added to the archive is damaged.
        ArchiveConflictError, ArchiveUnavailableError.
    """
    # Nobody is ended for nothing, nor is what is theirs looked at again and again.
    planning.check_takeover(await ask(archive.read_ring), dead.node_id, alive)
    if not dead.sealed:
        await ask(archive.seal_node, dead.node_id, dead.epoch, beat)
    failpoint("takeover.sealed")
    await archive_batches(archive, ask, dead.node_id, dead.epoch)
    failpoint("takeover.archived")
    if dead.level == LOCAL:
        await mark_lost(archive, ask, Loss(dead.node_id, dead.epoch))
    while True:
        ring: Ring = await ask(archive.read_ring)
        change = await trio.to_thread.run_sync(
            planning.plan_takeover, ring, dead.node_id, alive, at_ms, actor
        )
        if change is None:
            return 0
        try:
            await ask(archive.take_over, dead.epoch, change)
        except RingChangedError:
            continue
        return ring.owners.count(dead.node_id)


async def archive_batches(archive: Archive, ask: Ask, node_id: str, epoch: int) -> None:
    """Bring what a sealed node added as batches into the archive's tables; raises as `take_over`."""
    while True:
        cursor = (await ask(archive.read_cursor, node_id)).cursor
        # Where somebody else does the same, or the node has begun again, it is looked at anew.
        with suppress(CursorMismatchError):
            stored = await ask(archive.read_batches, node_id, cursor)
            if not stored:
                return
            records = _decoded(node_id, stored)
            await ask(archive.flush_sealed, node_id, epoch, cursor, records)


def _decoded(node_id: str, stored: Sequence[StoredRecord]) -> list[Record]:
    """Return as many records as one transaction takes."""
    records: list[Record] = []
    size = 0
    for each in stored[:FLUSH_ROWS]:
        size += len(each.body)
        if records and size > FLUSH_BYTES:
            break
        try:
            records.append(decode_record(each))
        except (ValueError, msgspec.MsgspecError) as error:
            path = f"log_batches of node {node_id}"
            raise CorruptLogError(path, each.lsn, f"no record of this version: {error}") from error
    return records
