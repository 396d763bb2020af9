"""What the flusher's tests share: a log that remembers, a flusher that runs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from storage import Archive, Flusher, Record
from tests.contracts.archive import NODE
from tests.storage.archive_records import messages


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

    def reread(self, from_lsn: int, to_lsn: int) -> list[Record]:
        self.rereads.append((from_lsn, to_lsn))
        return self.records[from_lsn:to_lsn]


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
