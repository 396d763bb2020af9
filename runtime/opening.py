"""Opening a node: what happens between a data directory and the first request.

Order of start: lock the data directory → ask whether another process is this node → take an epoch → recover the log →
flush the survivors → serve.
So a node that is open has flushed every record that its log held.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import trio

from runtime.codec import decode_record
from runtime.links.pool import dial_tcp
from runtime.links.tls import LinkTls
from runtime.losses import settle_losses
from runtime.node import Node
from runtime.nodeoptions import NodeOptions
from runtime.slotsfile import write_file
from runtime.takeover import archive_batches
from runtime.twin import check_no_twin
from storage import (
    LOCAL,
    REPLICATED,
    Archive,
    CorruptLogError,
    Directory,
    Flusher,
    FlushTarget,
    FlushThread,
    NodeReturnedError,
    Ownership,
    Place,
    RealDirectory,
    Replica,
    StoredRecord,
    failpoint,
    highest_epoch,
    open_commit_log,
    open_sync_thread,
)


@asynccontextmanager
async def open_node(
    options: NodeOptions,
    archive: Archive,
    directory: Directory | None = None,
    flush_target: FlushTarget | None = None,
    tls: LinkTls | None = None,
) -> AsyncIterator[Node]:
    """Recover this data directory and serve its sessions until the block ends.

    The log is in `data_dir/log`, or in a directory that the caller has opened and will close. Flushes run
    in a worker thread, or where `flush_target` does them. `tls` is what links of its cluster are encrypted with.

    Raises:
        StorageError: the directory is locked, another process is this node, the log is damaged, the archive does
            not answer; out of the block, if the log is poisoned or this node is fenced.
    """
    log_dir = options.data_dir / "log"
    opened = _lock_directory(log_dir) if directory is None else nullcontext(directory)
    async with opened as log_directory:
        node_id = await trio.to_thread.run_sync(_load_node_id, options.data_dir)
        dial = dial_tcp if tls is None else tls.dial
        await check_no_twin(archive, node_id.hex, options.place, dial)
        node = Node(options, archive)
        async with (
            _serve_log(node, log_directory, node_id, flush_target or FlushThread(archive)),
            trio.open_nursery() as node.nursery,
        ):
            node.nursery.start_soon(node.sweep)
            node.nursery.start_soon(node.remembering.run)
            try:
                yield node
            finally:
                node.ended = True
                node.nursery.cancel_scope.cancel()


@asynccontextmanager
async def _lock_directory(path: Path) -> AsyncIterator[Directory]:
    """Open a directory, made if missing, and hold its lock until the block ends."""
    directory = await trio.to_thread.run_sync(RealDirectory, path)
    try:
        yield directory
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(directory.close)


@asynccontextmanager
async def _serve_log(
    node: Node, directory: Directory, node_id: uuid.UUID, flush_target: FlushTarget
) -> AsyncIterator[None]:
    """Take an epoch, recover the log, flush what survived; then the node may serve."""
    await trio.to_thread.run_sync(node.archive.name_connections, node_id.hex)
    log_epoch = await trio.to_thread.run_sync(highest_epoch, directory)
    begin = partial(
        node.archive.begin_epoch,
        node_id.hex,
        node.durability,
        log_epoch,
        node.options.place,
    )
    async with AsyncExitStack() as stack:
        ownership = await trio.to_thread.run_sync(begin)
        if node.durability == LOCAL:
            alone = node.options.place is None
            await settle_losses(node.archive, trio.to_thread.run_sync, node_id.hex, alone=alone)
        if node.durability == REPLICATED:
            await _inherit(node.archive, node.options.place)
            node.replica = await stack.enter_async_context(
                _open_replica(node, node_id.hex, ownership)
            )
        node.log, survivors = await stack.enter_async_context(
            open_commit_log(
                directory,
                node_id=node_id.bytes,
                ownership=ownership,
                options=node.options.log,
                on_commit=node.committed,
                on_sync_seconds=node.synced,
                replica=node.replica,
            )
        )
        failpoint("start.recovered")
        node.flusher = Flusher(
            flush_target,
            node_id.hex,
            ownership.epoch,
            ownership.cursor,
            on_flushed=node.flushed,
            reread=node.reread,
            options=node.options.flush,
        )
        node.epoch = ownership.epoch
        node.push = node.flusher.push
        node.flusher.extend([decode_record(stored) for stored in survivors])
        survivors.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.flusher.run)
            await node.flusher.flush_all()
            failpoint("start.flushed")
            yield
            nursery.cancel_scope.cancel()


async def _inherit(archive: Archive, place: Place | None) -> None:
    """Archive what nodes acknowledged that were retired, where nobody else takes over from them.

    That is the members of a ring, for nodes that own slots of it; but a node without a place has none beside it.

    Raises:
        CorruptLogError: what one added to the archive is damaged.
    """
    ask = trio.to_thread.run_sync
    left = set(await ask(archive.list_batch_owners))
    if place is not None:
        left -= set((await ask(archive.read_ring)).owners)
    for other in await ask(archive.list_nodes) if left else ():
        if other.retired and other.node_id in left:
            with suppress(NodeReturnedError):
                await archive_batches(archive, ask, other.node_id, other.epoch)


@asynccontextmanager
async def _open_replica(node: Node, node_id: str, ownership: Ownership) -> AsyncIterator[Replica]:
    """Read what was added in earlier epochs, none of which can add more, and go on adding."""
    archive = node.archive
    records: list[StoredRecord] = []
    while page := await trio.to_thread.run_sync(
        archive.read_batches, node_id, ownership.cursor + len(records)
    ):
        records += page
    writer = archive.open_batch_writer(node_id, ownership.epoch)
    async with open_sync_thread() as thread:
        replica = Replica(writer, thread, records, node.doubted)
        try:
            yield replica
        finally:
            with trio.CancelScope(shield=True):
                await replica.close()


def _load_node_id(data_dir: Path) -> uuid.UUID:
    """Return the identity of this data directory, made durable at its first start."""
    path = data_dir / "node_id"
    try:
        text = path.read_text().strip()
        return uuid.UUID(text)
    except ValueError:
        raise CorruptLogError(str(path), 0, "it is no node id") from None
    except FileNotFoundError:
        node_id = uuid.uuid4()
        write_file(path, f"{node_id}\n".encode())
        return node_id
