"""What the flusher's tests share: a log that remembers, a flusher that runs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from storage import Archive, Flusher, FlushOptions, FlushThread, Record
from storage.flusher import RunSync
from tests.contracts.archive import NODE
from tests.fakes.archive import FakeArchive
from tests.fakes.run_sync import run_inline
from tests.storage.archive_records import messages

OPTIONS = FlushOptions(rows_max=10, interval_ms=300)


class FlushedLog:
    """A log of messages, all durable, and what the flusher said about them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.flushed: list[Record] = []
        self.cursors: list[int] = []
        self.rereads: list[tuple[int, int]] = []

    def append(self, count: int) -> list[Record]:
        """Append messages of one session; a message's seq is its LSN + 1."""
        first = len(self.records) + 1
        new = messages(first, first + count - 1)
        self.records += new
        return list(new)

    def on_flushed(self, records: Sequence[Record], cursor: int) -> None:
        self.flushed += records
        self.cursors.append(cursor)

    def reread(self, from_lsn: int, to_lsn: int, bytes_max: int) -> list[Record]:
        self.rereads.append((from_lsn, to_lsn))
        records = self.records[from_lsn:to_lsn]
        while len(records) > 1 and sum(len(record.body) for record in records) > bytes_max:
            records.pop()
        return records


def make_flusher(
    archive: FakeArchive, log: FlushedLog, options: FlushOptions = OPTIONS, **arguments: object
) -> Flusher:
    ownership = archive.begin_epoch(NODE, "local")
    run_sync: RunSync = arguments.get("run_sync", run_inline)  # type: ignore[assignment]
    return Flusher(
        FlushThread(archive, run_sync),
        NODE,
        ownership.epoch,
        ownership.cursor,
        on_flushed=log.on_flushed,
        reread=log.reread,
        options=options,
        run_sync=run_sync,
    )


@asynccontextmanager
async def running(flusher: Flusher) -> AsyncIterator[None]:
    """Run it until the block ends; raise what it ends with, by itself."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flusher.run)
            yield
            nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        [error] = group.exceptions
        raise error from None


def assert_archived(archive: Archive, log: FlushedLog) -> None:
    count = len(log.records)
    assert log.flushed == log.records
    assert archive.read_cursor(NODE).cursor == count
    assert archive.read_messages("default", "s1", 0, count + 1) == [
        (record.seq, record.body) for record in messages(1, count)
    ]


async def settle(seconds: float) -> None:
    """Let fake time pass, and everything happen that is due by then."""
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()
