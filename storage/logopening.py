"""Opening a commit log: recover what is there, then commit until the block ends."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio

from storage.commitlog import CommitLog, LogOptions
from storage.directory import Directory
from storage.errors import LogPoisonedError, StorageFullError
from storage.logwriter import LogWriter
from storage.ownership import Ownership
from storage.record import StoredRecord
from storage.recovery import Recovery, recover
from storage.replica import Replica
from storage.supply import FULL_ERRNOS, SegmentSupply
from storage.syncthread import RunSync, open_sync_thread


@asynccontextmanager
async def open_commit_log(
    directory: Directory,
    *,
    node_id: bytes,
    ownership: Ownership,
    on_commit: Callable[[list[Any]], None],
    options: LogOptions | None = None,
    run_sync: RunSync | None = None,
    on_sync_seconds: Callable[[float], None] | None = None,
    replica: Replica | None = None,
) -> AsyncIterator[tuple[CommitLog, list[StoredRecord]]]:
    """Recover the log in `directory` and open it for appending under the owner's epoch.

    Yields the log and the records that the archive does not have yet (from its cursor on), which are durable.
    Leaving the block syncs what was appended. Commits run in a thread of their own; with `run_sync`
    everything that blocks runs through it instead.

    With a `replica` a batch counts as durable when it is there too.

    Raises:
        LogPoisonedError: a read, write or sync failed.
        StorageFullError: the disk has no room to make what was recovered durable.
        StorageError: the log cannot be recovered; see `recover`.
    """
    options = options or LogOptions()
    async with AsyncExitStack() as stack:
        background = run_sync or partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(1))
        if run_sync is not None:
            foreground = run_sync
        else:
            foreground = (await stack.enter_async_context(open_sync_thread())).run_sync
        with _disk_errors_named():
            recovery = await background(
                partial(
                    recover,
                    directory,
                    node_id=node_id,
                    epoch=ownership.epoch,
                    cursor=ownership.cursor,
                    sealed_epoch=ownership.sealed_epoch,
                    replicated=() if replica is None else replica.records,
                )
            )
        if replica is not None:
            replica.records = ()
        supply = _open_supply(directory, background, options, recovery, ownership.cursor)
        writer = LogWriter(
            directory,
            supply,
            foreground,
            recovery=recovery,
            node_id=node_id,
            epoch=ownership.epoch,
            segment_bytes=options.segment_bytes,
            on_sync_seconds=on_sync_seconds,
        )
        log = CommitLog(writer, options, on_commit, recovery.next_lsn, replica)
        failure: BaseException | None = None
        try:
            with _disk_errors_named():
                await writer.open(min(options.first_segment_bytes, options.segment_bytes))
            log.update_room()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.run)
                nursery.start_soon(log.watch)
                nursery.start_soon(log.run_supply)
                if replica is not None:
                    nursery.start_soon(replica.watch)
                yield log, recovery.survivors
                await log.drain()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failure = _single(group)
        finally:
            with trio.CancelScope(shield=True):
                await log.close()
        if failure is not None:
            raise failure


def _open_supply(
    directory: Directory,
    background: RunSync,
    options: LogOptions,
    recovery: Recovery,
    cursor: int,
) -> SegmentSupply:
    supply = SegmentSupply(
        directory,
        background,
        segment_bytes=options.segment_bytes,
        retention_seconds=options.retention_seconds,
        retention_bytes=options.retention_bytes,
    )
    supply.release(cursor)
    supply.retire(recovery.segments)
    return supply


@contextmanager
def _disk_errors_named() -> Iterator[None]:
    """Give what the disk says while a log is being opened the name of a storage error."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise StorageFullError(
                f"the data directory's disk is full: {error}",
                hint="free space on it, then start again",
            ) from error
        raise LogPoisonedError(str(error)) from error


def _single(group: BaseExceptionGroup) -> BaseException:
    """Return the one exception that a group is about, so that callers catch it by its class.

    A log that fails raises out of its own task and out of every call that waits for it: one of them will do.
    """
    _, rest = group.split(LogPoisonedError)
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and (rest is None or len(error.exceptions) == 1):
        error = error.exceptions[0]
    return error
